# Read by llama.cpp's CMake when `make` builds the engine (CMAKE_PROJECT_llama.cpp_INCLUDE): leaves out the
# helper library of llama.cpp's own programs, which the app does not use and which doubles the build time.
set(LLAMA_BUILD_COMMON OFF)
# ... and the kernels for Intel's AMX, which end the process (ggml-org/llama.cpp#20824): AVX-512's are used instead.
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:-U__AMX_INT8__>" "$<$<COMPILE_LANGUAGE:C,CXX>:-U__AMX_TILE__>")
