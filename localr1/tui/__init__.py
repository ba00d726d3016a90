"""The chat on the screen. Nothing here imports an engine: `ChatApp` is handed a function that opens one."""
