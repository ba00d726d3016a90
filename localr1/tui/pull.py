"""A pull beside the chat: on a thread of its own, which a person may stop."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

from localr1.text import printable
from localr1.tui.engine import one_line

if TYPE_CHECKING:
    from localr1.fetching import Progress


class Pull:
    """Written by its thread, read by the screen. `over`: what was to come is here, or `problem` says why not."""

    def __init__(self, ref: str) -> None:
        self.ref = ref
        self.progress = f"Looking for {ref}"
        self.problem = ""
        self.over = self.cancelled = False
        Thread(target=self._run, name="pull", daemon=True).start()  # a connection that hangs must not keep the terminal

    def _run(self) -> None:
        try:
            self._pull()
        except Exception as error:  # whatever went wrong, the person gets to read it
            self.problem = "it was stopped; what has come is kept" if self.cancelled else one_line(error)
        self.over = True

    def _pull(self) -> None:
        from localr1.fetching import download
        from localr1.hub import plan
        from localr1.hub_errors import HubError
        from localr1.model_facts import read_facts

        found = plan(self.ref)
        if not found.fits:
            raise HubError(f"{found.title} does not fit this machine's memory; localr1 pull {self.ref} --force downloads it all the same")
        read_facts(download(found, self._report))

    def _report(self, progress: Progress) -> None:
        from quantize.report_text import size

        if self.cancelled:
            raise InterruptedError
        step = {"loading": "", "checking": ", checking it", "waiting": ", waiting for another download of it"}[progress.step]
        done = f"{size(progress.done_bytes)} of {size(progress.total_bytes)}"
        self.progress = printable(f"Pulling {self.ref}: {done}{step}")
