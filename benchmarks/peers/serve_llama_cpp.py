"""llama.cpp's own server on a GGUF file, as the package xllamacpp brings it: run in that package's environment.

python serve_llama_cpp.py FILE.gguf PORT SLOTS CONTEXT THREADS [KEY]"""

import signal
import sys

import xllamacpp


def main() -> None:
    path, port, slots, context, threads, *keys = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.n_parallel, params.n_ctx = int(slots), int(context) * int(slots)  # the context is divided among the slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.use_jinja, params.cont_batching = True, True
    params.verbosity = 0
    params.api_keys = keys
    server = xllamacpp.Server(params)
    print(f"serving on {server.listening_address}", flush=True)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])


if __name__ == "__main__":
    main()
