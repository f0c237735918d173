# -DMENDFS_FUZZ=ON: the targets of tests/fuzz with libFuzzer, ASan and UBSan, and nothing else. -DMENDFS_FUZZ_COVERAGE=ON: the same with llvm's source
# coverage instead of the sanitizers.
if(NOT CMAKE_C_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "MENDFS_FUZZ needs clang: configure with -DCMAKE_C_COMPILER=clang-14")
endif()
option(MENDFS_FUZZ_COVERAGE "measure source coverage" OFF)
set(MENDFS_TESTS OFF)
enable_testing()
# What comparisons compare is not traced: the mutators know the interesting values, and it costs half of the executions.
add_compile_options(-fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp -fno-omit-frame-pointer)
if(MENDFS_FUZZ_COVERAGE)
  add_compile_options(-fprofile-instr-generate -fcoverage-mapping)
  add_link_options(-fprofile-instr-generate)
else()
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all)
  add_link_options(-fsanitize=address,undefined)
endif()
