#!/bin/sh
# Prints the CMake arguments for building llama.cpp on this machine; with --describe, says in words what is built.
# CUDA needs nvcc and a GPU that answers: on a machine with the toolkit alone it would cost half an hour for nothing.
here=$(cd "$(dirname "$0")" && pwd)
engine=${ENGINE:-}
if [ -z "$engine" ]; then
    if [ "$(uname -s)" = Darwin ]; then engine=metal
    elif command -v nvcc >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then engine=cuda
    elif command -v glslc >/dev/null 2>&1 && { [ -n "${VULKAN_SDK:-}" ] || [ -e /usr/include/vulkan/vulkan.h ]; }; then engine=vulkan
    else engine=cpu
    fi
fi
if [ "${1:-}" = --describe ]; then
    echo "$engine"
    exit
fi
case $engine in
    cuda) gpu=-DGGML_CUDA=ON ;;
    vulkan) gpu=-DGGML_VULKAN=ON ;;
    *) gpu= ;;
esac
# Left out: image input (llava) and downloads by the engine (OpenSSL); engine.cmake leaves out more.
echo "-DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE='$here/engine.cmake' $gpu ${CMAKE_ARGS:-}"
