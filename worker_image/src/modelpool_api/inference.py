"""What a worker's inference port tells whoever routes requests to it, besides the answers themselves."""

from typing import Final

#: With a 503: the state of a worker that takes no requests now.
HEADER_STATE: Final = "X-Modelpool-State"
#: With every answer: uid of the ModelWorker. An address may be another worker's by the time it is asked, and only the
#: one who answers can say so; nothing that a client sends has a part in it.
HEADER_WORKER: Final = "X-Modelpool-Worker"
