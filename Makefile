# make            build what is installed
# make static     the same as one file without libraries, for containers and systems without glibc; it crashes where
#                 names are looked up by modules (nsswitch.conf(5): resolve, myhostname)
# make check      everything a change must pass; as root on Debian it installs what the tests need
# make install    DESTDIR= PREFIX=/usr/local; builds nothing, needs no network
# make units      write units/ anew from templates/

PREFIX ?= /usr/local
bindir ?= $(PREFIX)/bin
datadir ?= $(PREFIX)/share
# The bus reads /usr/share and /etc only.
dbuspolicydir ?= $(if $(filter /usr,$(PREFIX)),$(datadir),/etc)/dbus-1/system.d
unitdir ?= $(PREFIX)/lib/systemd/system
userunitdir ?= $(PREFIX)/lib/systemd/user
sysusersdir ?= $(PREFIX)/lib/sysusers.d
docdir ?= $(PREFIX)/share/doc/foxxy-bridge
licensedir ?= $(PREFIX)/share/licenses/foxxy-bridge

CARGO ?= cargo
INSTALL ?= install
# Not pyenv's: an unprivileged user of the test machine runs what is made with it.
PYTHON ?= /usr/bin/python3
TARGET_DIR ?= $(or $(CARGO_TARGET_DIR),target)
BINARY = $(TARGET_DIR)/release/foxxy-bridge

# Only with a target that is named are the compiler's own plugins spared. A static glibc does not find its getrandom by
# name, and /dev may be empty where this is run.
HOST = $(shell rustc --print host-tuple)
STATIC = -C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom"

CARGO_DENY_VERSION = 0.20.2
TOOLS = $(TARGET_DIR)/tools
CARGO_DENY := $(or $(shell command -v cargo-deny),$(TOOLS)/bin/cargo-deny)

SERVERS = tests/servers
# What the tests need: a systemd to boot, what a user manager needs in it, and the real MCP servers' python.
PACKAGES = busybox-static curl dbus dbus-user-session libpam-systemd logrotate mmdebstrap polkitd python3-venv systemd \
	systemd-container systemd-sysv tini

# A second systemd for them: that of Debian 13, with what the tests use in it, and its python's version.
TREES = $(TARGET_DIR)/trees
TRIXIE = ca-certificates curl dbus dbus-user-session iproute2 libpam-systemd nodejs polkitd procps python3 systemd \
	systemd-sysv
TRIXIE_PYTHON = 3.13
# The archive that this Debian is installed from has that one too.
ARCHIVE = apt-get indextargets --format '$$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' \
	'Component: main' | sort --unique | head --lines=1

.NOTPARALLEL:
.PHONY: all static check test test-systemd test-static bench soak servers trees deps lint deny install clean units

all:
	$(CARGO) build --release --locked

static:
	RUSTFLAGS='$(STATIC)' $(CARGO) build --release --locked --target $(HOST)
	@echo 'made $(TARGET_DIR)/$(HOST)/release/foxxy-bridge'

check: deps lint deny servers trees test
	@left_out() { echo "make check: left out: $$1"; }; \
	[ "$$(id -u)" = 0 ] || left_out 'the tests in a real systemd: they need root'; \
	command -v systemd-nspawn >/dev/null || left_out 'the tests in a real systemd: no systemd-nspawn'; \
	[ -e $(TREES)/trixie/.made ] || left_out 'the tests in the systemd of Debian 13: no mmdebstrap, or no Debian archive'; \
	[ -e $(SERVERS)/node_modules/.made ] || left_out 'the MCP servers of npm: npm is not installed'; \
	[ -e $(SERVERS)/venv/.made ] || left_out 'the MCP servers of PyPI, and the client: python3 has no venv'; \
	echo 'make check: all that ran has passed'

# Those in a real systemd (tests/systemd) are among them; without root they are listed as ignored.
test: servers trees
	$(CARGO) test --locked --no-fail-fast

test-systemd: servers trees
	$(CARGO) test --locked --test systemd

# What `make static` makes, in a tree with nothing but busybox; needs root.
test-static:
	RUSTFLAGS='$(STATIC)' $(CARGO) build --locked --target $(HOST)
	STATIC_BRIDGE='$(abspath $(TARGET_DIR))/$(HOST)/debug/foxxy-bridge' \
		$(CARGO) test --locked --test pidfile -- --ignored --exact bare::in_a_tree_without_any_library_all_commands_work

# What it costs against what systemd's own commands cost; needs root.
bench: servers trees
	$(CARGO) bench --locked --bench systemd

# A thousand starts and stops, and what they leave; needs root.
soak: servers trees
	$(CARGO) test --locked --test systemd -- --ignored

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

# Trees of other Debians for the tests in a real systemd. Made once; needs root.
trees: $(TREES)/trixie/.made

$(TREES)/trixie/.made: $(SERVERS)/requirements.txt
	@left_out() { echo "$$1: the systemd of Debian 13 is left out"; exit 0; }; \
	[ "$$(id -u)" = 0 ] || left_out 'not root'; \
	command -v mmdebstrap >/dev/null || left_out 'no mmdebstrap'; \
	$(PYTHON) -m pip --version >/dev/null 2>&1 || left_out 'no pip'; \
	archive=$$($(ARCHIVE)); \
	[ -n "$$archive" ] || left_out 'no Debian archive'; \
	set -ex; umask 022; \
	rm -rf $(@D); mkdir -p $(@D)/venv/bin; \
	mmdebstrap --quiet --variant=minbase --include="$(TRIXIE)" trixie $(@D)/root "$$archive"; \
	ln -s /usr/bin/python3 $(@D)/venv/bin/python; \
	echo 'home = /usr/bin' > $(@D)/venv/pyvenv.cfg; \
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version $(TRIXIE_PYTHON) --implementation cp \
		--platform manylinux2014_$$(uname -m) --platform manylinux_2_28_$$(uname -m) \
		--target $(@D)/venv/lib/python$(TRIXIE_PYTHON)/site-packages -r $<; \
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

# The units name the program by the place where packages put it.
install_unit = $(INSTALL) -D -m 0644 -t $(DESTDIR)$(2) $(1); \
	sed -i 's,/usr/bin/foxxy-bridge,$(bindir)/foxxy-bridge,' $(DESTDIR)$(2)/$$(basename $(1))

# The units that are made from the templates.
units:
	UPDATE_UNITS=1 $(CARGO) test --locked --lib the_packaged_units

install:
	@[ -x $(BINARY) ] || { echo 'make install: $(BINARY) is not built: run make first, as yourself' >&2; exit 1; }
	$(INSTALL) -D -m 0755 $(BINARY) $(DESTDIR)$(bindir)/foxxy-bridge
	$(INSTALL) -D -m 0644 -t $(DESTDIR)$(dbuspolicydir) contrib/dbus-1/foxxy-bridge.conf
	$(INSTALL) -D -m 0644 -t $(DESTDIR)$(sysusersdir) contrib/sysusers.d/foxxy-bridge.conf
	@set -ex; for kind in service socket; do \
		$(call install_unit,units/system/foxxy-bridge@.$$kind,$(unitdir)); \
		$(call install_unit,units/user/foxxy-bridge@.$$kind,$(userunitdir)); \
	done
	$(INSTALL) -D -m 0644 -t $(DESTDIR)$(docdir) README.md
	$(INSTALL) -D -m 0644 -t $(DESTDIR)$(licensedir) LICENSE-APACHE LICENSE-MIT

clean:
	$(CARGO) clean
	rm -rf $(SERVERS)/node_modules $(SERVERS)/venv
