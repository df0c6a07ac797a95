#!/bin/sh
# Removes from an environment what serving never loads, about a third of it: slim.sh ENVIRONMENT EXTRAS
set -eu
cd "$1"/lib/python3*/site-packages
find . -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
# Sources and headers, for compilers and type checkers.
find . -type f \( -name '*.py[ixd]' -o -name '*.px[id]' -o -name '*.h' -o -name '*.hpp' -o -name '*.c' -o -name '*.cpp' \) -delete
rm -rf pyarrow/include pyarrow/src numpy/_core/include numpy/f2py
# Copies of libraries that are loaded by another name: the loader asks for libarrow_python.so.N.
rm -f pyarrow/libarrow_python*.so pyarrow/libarrow_python*.so.*.*.*
# Arrow's servers and clients; the service takes streams from memory.
rm -f pyarrow/libarrow_flight.so.* pyarrow/libarrow_python_flight.so.* pyarrow/_flight.*.so pyarrow/_pyarrow_cpp_tests.*.so
case ",$(echo "$2" | tr -d ' ')," in
*,ray,*) ;; # it reads tables from wherever they lie
*) rm -f pyarrow/libarrow_s3.so.* pyarrow/_s3fs.*.so ;;
esac
# onnxruntime for programs in C, which its Python module has inside, and its tools to make graphs.
rm -f onnxruntime/capi/libonnxruntime.so.*
rm -rf onnxruntime/transformers onnxruntime/tools onnxruntime/quantization onnxruntime/datasets onnxruntime/backend
