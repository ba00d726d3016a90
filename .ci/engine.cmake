# Read by llama.cpp's CMake when `make` builds the engine (CMAKE_PROJECT_llama.cpp_INCLUDE): leaves out the
# helper library of llama.cpp's own programs, which the app does not use and which doubles the build time.
set(LLAMA_BUILD_COMMON OFF)
