"""What the gateway finds out in vLLM's server, and the launcher ends with an error for."""

import threading

ENGINE_DIED = threading.Event()
NOT_STARTED = threading.Event()
