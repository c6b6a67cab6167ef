# Two words for a newcomer: `make demo` and `make test`. Everything else is CMake's; see CMakeLists.txt.

BUILD ?= build
CMAKE_FLAGS ?=

.PHONY: all demo test test-avx2 bench count fuzz lint clean

# The release binary, build/temper.
all:
	@tools/setup_apt.sh build
	@cmake -S . -B $(BUILD) -G Ninja -DTEMPER_TESTS=OFF $(CMAKE_FLAGS)
	@cmake --build $(BUILD)

# Post-trains a small V4 model on real data and shows what it learned; ends with runs/demo/summary.json.
demo:
	@tools/setup_apt.sh demo
	@cmake -S . -B $(BUILD) -G Ninja -DTEMPER_TESTS=OFF $(CMAKE_FLAGS)
	@cmake --build $(BUILD)
	@tools/demo.sh

# Builds and runs every test.
test:
	@tools/setup_apt.sh test
	@cmake -S . -B $(BUILD) -G Ninja -DTEMPER_TESTS=ON $(CMAKE_FLAGS)
	@cmake --build $(BUILD)
	@ctest --test-dir $(BUILD) --output-on-failure -j $$(nproc)

# Runs what computes once more on the paths of machines without AVX-512, after `make test`. Resumes and guarded runs are
# about files and decisions.
test-avx2:
	@echo "AVX2 only:"
	@TEMPER_ISA=avx2 ctest --test-dir $(BUILD) --output-on-failure -j $$(nproc) \
	  -L '^(backend|layers|model|objective|optim|rollout|train)$$' -E '^(ResumeTest|GuardedRunTest)'

bench:
	@tools/setup_apt.sh build
	@cmake -S . -B $(BUILD) -G Ninja -DTEMPER_BENCH=ON $(CMAKE_FLAGS)
	@cmake --build $(BUILD)

# Instructions and bytes of a tiny step against the committed figures (bench/count).
count:
	@tools/setup_apt.sh count
	@cmake -S . -B $(BUILD) -G Ninja -DTEMPER_BENCH=ON $(CMAKE_FLAGS)
	@cmake --build $(BUILD) --target bench_count_step
	@BUILD=$(BUILD) bench/count

# Hostile input for every reader: RUNS executions of each fuzz target (docs/hostile.md).
RUNS ?= 10000000
fuzz:
	@tools/setup_apt.sh fuzz
	@tools/fuzz_all $(RUNS) --jobs $$(nproc)

# clang-format and clang-tidy with the configurations here; needs a build directory of `make test`.
lint:
	@find src tests bench fuzz -name '*.h' -o -name '*.cc' -o -name '*.inc' | xargs clang-format --dry-run -Werror
	@cmake -S . -B $(BUILD) -DCMAKE_EXPORT_COMPILE_COMMANDS=ON >/dev/null
	@find src -name '*.cc' | xargs -P $$(nproc) -n 4 clang-tidy -p $(BUILD) --quiet

clean:
	rm -rf $(BUILD)
