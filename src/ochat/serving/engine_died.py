"""Whether the engine has died: the gateway finds out, and the launcher ends with an error for it."""

import threading

ENGINE_DIED = threading.Event()
