"""``POST /v1/completions``."""

from functools import partial

from starlette.types import Receive, Scope, Send

from modelpool_worker.openai.completions import CompletionAnswer, parse_completion
from modelpool_worker.web.generation import Generation


class Completions(Generation):
    """Prompts → texts that continue them."""

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Serve one request."""
        body = await self.body(scope, receive)
        request = await self.parsed(body, partial(parse_completion, model_name=self.settings.model_name))
        del body
        logprobs = request.sampling.top_logprobs is not None
        answer = CompletionAnswer(self.identity("cmpl"), request.form, size=request.size, logprobs=logprobs)
        with self.runner.admitted(request.size) as job, self.metrics.latency.time():
            texts = request.texts()
            if request.form.stream:
                return await self.streamed(job, texts, answer, receive, send)
            return await self.whole(job, texts, answer, scope, receive, send)
