# make            build what is installed
# make check      everything a change must pass; as root on Debian it installs what the tests need
# make install    DESTDIR= PREFIX=/usr/local; builds nothing, needs no network

PREFIX ?= /usr/local
bindir ?= $(PREFIX)/bin
datadir ?= $(PREFIX)/share
# The bus reads /usr/share and /etc only: for another PREFIX, /etc/dbus-1/system.d is the place.
dbuspolicydir ?= $(datadir)/dbus-1/system.d
docdir ?= $(PREFIX)/share/doc/foxxy-bridge
licensedir ?= $(PREFIX)/share/licenses/foxxy-bridge

CARGO ?= cargo
INSTALL ?= install
# Not pyenv's: an unprivileged user of the test machine runs what is made with it.
PYTHON ?= /usr/bin/python3
TARGET_DIR ?= $(or $(CARGO_TARGET_DIR),target)
BINARY = $(TARGET_DIR)/release/foxxy-bridge

CARGO_DENY_VERSION = 0.20.2
TOOLS = $(TARGET_DIR)/tools
CARGO_DENY := $(or $(shell command -v cargo-deny),$(TOOLS)/bin/cargo-deny)

SERVERS = tests/servers
# What the tests need: a systemd to boot, what a user manager needs in it, and the real MCP servers' python.
PACKAGES = curl dbus dbus-user-session libpam-systemd polkitd python3-venv systemd systemd-container systemd-sysv

.NOTPARALLEL:
.PHONY: all check test test-systemd servers deps lint deny install clean

all:
	$(CARGO) build --release --locked

check: deps servers lint deny test
	@left_out() { echo "make check: left out: $$1"; }; \
	[ "$$(id -u)" = 0 ] || left_out 'the tests in a real systemd: they need root'; \
	command -v systemd-nspawn >/dev/null || left_out 'the tests in a real systemd: no systemd-nspawn'; \
	[ -e $(SERVERS)/node_modules/.made ] || left_out 'the MCP servers of npm: npm is not installed'; \
	[ -e $(SERVERS)/venv/.made ] || left_out 'the MCP servers of PyPI, and the client: python3 has no venv'; \
	echo 'make check: all that ran has passed'

# Those in a real systemd (tests/systemd) are among them; without root they are listed as ignored.
test: servers
	$(CARGO) test --locked --no-fail-fast

test-systemd: servers
	$(CARGO) test --locked --test systemd

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

deny: $(CARGO_DENY)
	$(CARGO_DENY) --locked check bans licenses sources

$(TOOLS)/bin/cargo-deny:
	$(CARGO) install cargo-deny --locked --version $(CARGO_DENY_VERSION) --root $(TOOLS)

# Real MCP servers for the tests, at the versions that are written down.
servers: $(SERVERS)/node_modules/.made $(SERVERS)/venv/.made

$(SERVERS)/node_modules/.made: $(SERVERS)/package.json $(SERVERS)/package-lock.json
	@if ! command -v npm >/dev/null; then echo 'no npm: the MCP servers of npm are left out'; exit 0; fi; \
	set -ex; umask 022; \
	npm ci --prefix $(SERVERS) --ignore-scripts --no-audit --no-fund; \
	touch $@

$(SERVERS)/venv/.made: $(SERVERS)/requirements.txt
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then echo 'no venv: the MCP servers of PyPI are left out'; exit 0; fi; \
	set -ex; umask 022; \
	$(PYTHON) -m venv --clear $(SERVERS)/venv; \
	$(SERVERS)/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<; \
	touch $@

# Installs what is missing, where that is possible: as root, with apt.
deps:
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0; \
	missing=; \
	for package in $(PACKAGES); do \
		dpkg-query --show --showformat='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || \
			missing="$$missing $$package"; \
	done; \
	command -v node >/dev/null || missing="$$missing nodejs"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	[ -n "$$missing" ] || exit 0; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update || echo 'apt-get update failed; trying with the lists that are there' >&2; \
	apt-get install --yes --no-install-recommends $$missing

install:
	@[ -x $(BINARY) ] || { echo 'make install: $(BINARY) is not built: run make first, as yourself' >&2; exit 1; }
	$(INSTALL) -D -m 0755 $(BINARY) $(DESTDIR)$(bindir)/foxxy-bridge
	$(INSTALL) -D -m 0644 -t $(DESTDIR)$(dbuspolicydir) contrib/dbus-1/foxxy-bridge.conf
	$(INSTALL) -D -m 0644 -t $(DESTDIR)$(docdir) README.md
	$(INSTALL) -D -m 0644 -t $(DESTDIR)$(licensedir) LICENSE-APACHE LICENSE-MIT

clean:
	$(CARGO) clean
	rm -rf $(SERVERS)/node_modules $(SERVERS)/venv
