"""Drives the MCP client of the Python SDK, for tests that want a client that is not ours.

client.py [--mode MODE] [--timeout SECONDS] TARGET VERB [ARGUMENT...]
client.py [--mode MODE] [--timeout SECONDS] TARGET steps [JSON]

TARGET is a Streamable HTTP address, or a command line to run and talk to over its stdin and stdout.
MODE is auto (the newest era that both sides speak), legacy (initialize) or a protocol version without sessions.

One VERB prints its result. `steps` runs a list of [VERB, ARGUMENT...] in one session, read from JSON or stdin, and
prints what was negotiated, the result of each step, and the notifications in the order they came.

    init                           what was negotiated: protocolVersion, serverInfo, capabilities, instructions
    tools | resources | templates | prompts
                                   the whole list, over all pages
    call NAME [JSON]               call a tool; its progress arrives among the notifications
    read URI
    prompt NAME [JSON]
    complete prompt|resource NAME ARGUMENT VALUE
    subscribe URI, log LEVEL, ping
    await METHOD                   wait until a notification of that method has come

Exit status: 0; 1 when the server answered a step with an error (also `isError`); 2 when there was no answer in time,
no connection, or the command line is wrong.
"""

import argparse
import asyncio
import json
import shlex
import sys
import warnings

from mcp import Client, MCPError, StdioServerParameters
from mcp.types import PromptReference, ResourceTemplateReference

# Sessions, logging levels and ping are deprecated in the newest protocol, and are what the tests are about.
warnings.simplefilter("ignore")


def plain(model):
    """A message as it is spelled on the wire, without what was absent."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Driver:
    def __init__(self, target, mode, timeout):
        if not target.startswith(("http://", "https://")):
            command, *arguments = shlex.split(target)
            target = StdioServerParameters(command=command, args=arguments)
        self.notifications = []
        self.arrived = asyncio.Condition()
        self.client = Client(
            target, mode=mode, read_timeout_seconds=timeout, message_handler=self.on_message, cache=None
        )

    async def on_message(self, message):
        if isinstance(message, Exception):
            raise message
        # Progress counts only where the SDK found the call that it belongs to: see on_progress.
        if message.method != "notifications/progress":
            await self.note(plain(message))

    async def on_progress(self, progress, total, message):
        params = {"progress": progress, "total": total, "message": message}
        await self.note({"method": "notifications/progress", "params": params})

    async def note(self, notification):
        async with self.arrived:
            self.notifications.append(notification)
            self.arrived.notify_all()

    def init(self):
        client = self.client
        return {
            "protocolVersion": client.protocol_version,
            "serverInfo": client.server_info and plain(client.server_info),
            "capabilities": plain(client.server_capabilities),
            "instructions": client.instructions,
        }

    async def pages(self, fetch, key):
        items, page = [], plain(await fetch())
        items += page[key]
        while cursor := page.get("nextCursor"):
            page = plain(await fetch(cursor=cursor))
            items += page[key]
        return items

    async def wait_for(self, method):
        async with self.arrived:
            seen = lambda: [n for n in self.notifications if n["method"] == method]
            await self.arrived.wait_for(seen)
            return seen()[-1]

    async def step(self, verb, *args):
        """The result of one step, plain."""
        client = self.client
        match (verb, *args):
            case ("init",):
                return self.init()
            case ("tools",):
                return await self.pages(client.list_tools, "tools")
            case ("resources",):
                return await self.pages(client.list_resources, "resources")
            case ("templates",):
                return await self.pages(client.list_resource_templates, "resourceTemplates")
            case ("prompts",):
                return await self.pages(client.list_prompts, "prompts")
            case ("call", name, *rest):
                result = client.call_tool(name, arguments(rest), progress_callback=self.on_progress)
                return plain(await result)
            case ("read", uri):
                return plain(await client.read_resource(uri))
            case ("prompt", name, *rest):
                return plain(await client.get_prompt(name, arguments(rest)))
            case ("complete", "prompt", name, argument, value):
                ref = PromptReference(type="ref/prompt", name=name)
                return plain(await client.complete(ref, {"name": argument, "value": value}))
            case ("complete", "resource", uri, argument, value):
                ref = ResourceTemplateReference(type="ref/resource", uri=uri)
                return plain(await client.complete(ref, {"name": argument, "value": value}))
            case ("subscribe", uri):
                return plain(await client.subscribe_resource(uri))
            case ("log", level):
                return plain(await client.set_logging_level(level))
            case ("ping",):
                return plain(await client.send_ping())
            case ("await", method):
                return await self.wait_for(method)
        raise ValueError(f"no such step: {json.dumps([verb, *args])}")


def arguments(rest):
    """A step's arguments: JSON text from a command line, an object from a list of steps."""
    if not rest:
        return None
    return json.loads(rest[0]) if isinstance(rest[0], str) else rest[0]


async def run(options, steps):
    driver = Driver(options.target, options.mode, options.timeout)
    results, failed = [], False
    async with driver.client:
        for step in steps:
            try:
                result = await driver.step(*step)
                failed |= isinstance(result, dict) and result.get("isError", False)
            except MCPError as error:
                result, failed = {"error": plain(error.error)}, True
            results.append(result)
        session = driver.init() | {"results": results, "notifications": driver.notifications}
    return session, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="auto")
    parser.add_argument("--timeout", type=float, default=30)
    parser.add_argument("target")
    parser.add_argument("verb")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    several = options.verb == "steps"
    steps = [[options.verb, *options.arguments]]
    if several:
        steps = json.loads(options.arguments[0] if options.arguments else sys.stdin.read())
    try:
        session, failed = asyncio.run(asyncio.wait_for(run(options, steps), options.timeout))
    except TimeoutError:
        print(f"client.py: no answer from {options.target} within {options.timeout:g} s", file=sys.stderr)
        return 2
    except Exception as error:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        print(f"client.py: {options.target}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    json.dump(session if several else session["results"][0], sys.stdout, ensure_ascii=False)
    print()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
