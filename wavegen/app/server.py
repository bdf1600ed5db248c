"""The HTTP server: sessions by bearer tokens, uploads, jobs and their results, and a socket that follows jobs.

Errors are JSON, ``{"error": {"field": ..., "message": ...}}``; the field is null where none is to blame. Nothing is
served from elsewhere, and no path of the file system is taken from a request.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from wavegen.app.jobs import Job, Worker, follow
from wavegen.app.sessions import Session, Sessions
from wavegen.app.tasks import TASKS, AnyTask, FieldError, name_of
from wavegen.app.uploads import BYTES, understand
from wavegen.errors import WavegenError

POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; style-src 'self' 'unsafe-inline'; media-src 'self' blob:; "
    "img-src 'self' data: blob:; worker-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)
MEDIA = {".wav": "audio/wav", ".mid": "audio/midi"}
LOCAL = ("127.0.0.1", "localhost")
"""Names of this machine, which no other machine can use."""
BODY_BYTES, ARRIVING, CONNECTIONS = 64 << 10, 8, 256
"""The largest body of a request that is no upload, uploads that may arrive at once, and connections in all."""


class Login(BaseModel):
    """What begins a session."""

    password: str = Field("", max_length=200)


def make_app(models: Mapping[str, Any], *, hosts: list[str], password: str = "") -> FastAPI:
    """The application.

    Args:
        models: generators by name, from ``wavegen.load``.
        hosts: names that it answers to; others, to which a page elsewhere was made to point, are refused.
        password: begins a session; empty is none.
    """
    sessions, worker = Sessions(), Worker()
    arriving = 0

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(worker.close)

    # The pages that show the schema would fetch scripts from elsewhere; the schema itself does not.
    app = FastAPI(
        title="wavegen", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json", lifespan=lifespan
    )

    @app.middleware("http")
    async def guarded(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        length = request.headers.get("content-length", "0")
        uploads = request.url.path == "/api/uploads"
        if not uploads and (
            not length.isdigit() or int(length) > BODY_BYTES or "transfer-encoding" in request.headers
        ):
            response: Response = _error(413, None, f"expected a body of at most {BODY_BYTES} bytes")
        else:
            response = await proceed(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response

    # Added last, it comes first.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)

    @app.exception_handler(RequestValidationError)
    async def misfit(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        names = [str(part) for part in first["loc"] if part != "body"]
        return _error(422, names[-1] if names else None, first["msg"])

    @app.exception_handler(WavegenError)
    async def unusable(request: Request, error: WavegenError) -> Response:
        return _error(422, error.field if isinstance(error, FieldError) else None, str(error))

    @app.exception_handler(StarletteHTTPException)
    async def refused(request: Request, error: StarletteHTTPException) -> Response:
        return _error(error.status_code, None, str(error.detail))

    def current(given: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> Session:
        session = sessions.find(given.credentials)
        if session is None:
            raise HTTPException(401, "begin a session first: POST api/session")
        return session

    Current = Annotated[Session, Depends(current)]

    def own(session: Current, job: str) -> Job:
        if job not in session.jobs:
            raise HTTPException(404, "this session has no such job")
        return session.jobs[job]

    Own = Annotated[Job, Depends(own)]

    def described(job: Job) -> dict[str, Any]:
        files = [f"{row}.wav" for row in range(len(job.blocks[0]) if job.blocks else 0)] + [*job.files]
        return {
            "job": job.id,
            "title": job.title,
            "state": job.state,
            "error": job.error,
            "what": job.what,
            "done": job.done,
            "total": job.total,
            "seconds_left": job.seconds_left,
            "ahead": worker.ahead(job),
            "sample_rate": job.sample_rate,
            "files": files,
        }

    @app.post("/api/session")
    async def begin(login: Login) -> dict[str, str]:
        """Begins a session: a token for ``Authorization: Bearer``, and for the socket."""
        if password and not hmac.compare_digest(login.password.encode(), password.encode()):
            await asyncio.sleep(0.5)
            raise FieldError("password", "this is not the password")
        return {"token": sessions.begin()}

    @app.get("/api/models")
    async def listed(_: Current) -> list[dict[str, Any]]:
        """The models, and the tasks that each can do."""
        return [
            {
                "name": called,
                "kind": model.config.model.kind,
                "sample_rate": getattr(model, "sample_rate", None),
                "labels": {name: list(model.labels[name]) for name in model.config.model.label_fields},
                "tasks": [name_of(task) for task in TASKS if task.fits(model)],
            }
            for called, model in models.items()
        ]

    @app.post("/api/uploads", openapi_extra={"requestBody": {"content": {"application/octet-stream": {}}}})
    async def upload(request: Request, session: Current) -> dict[str, Any]:
        """Takes a recording or a MIDI file as the body; what it is is read from its bytes."""
        nonlocal arriving
        if arriving >= ARRIVING:
            raise HTTPException(503, f"{ARRIVING} uploads are arriving already; try again")
        arriving += 1
        try:
            data = bytearray()
            async for part in request.stream():
                data += part
                if len(data) > BYTES:
                    raise HTTPException(413, f"expected at most {BYTES} bytes; cut the file")
            understood = await run_in_threadpool(understand, bytes(data))
        finally:
            arriving -= 1
        name = session.keep_upload(understood)
        sessions.make_room()
        return {"upload": name, **understood.described()}

    @app.post("/api/jobs", status_code=201)
    async def create(task: AnyTask, session: Current) -> dict[str, Any]:
        """Puts a task into the queue; what is wrong with it is said at once."""
        model = models.get(task.model)
        if model is None:
            raise FieldError("model", f"there is no model '{task.model}'; there are {', '.join(models)}")
        if not task.fits(model):
            raise FieldError("task", f"{task.model} cannot {task.task}; see the list of models")
        work = await run_in_threadpool(task.prepared, model, session.uploads)
        rate = getattr(model, "sample_rate", 0)
        job = Job(f"{task.task} by {task.model}, seed {task.seed}", work, rate)
        session.keep_job(job)
        try:
            worker.submit(job)
        except WavegenError:
            del session.jobs[job.id]
            raise
        sessions.make_room()
        return described(job)

    @app.get("/api/jobs")
    async def jobs(session: Current) -> list[dict[str, Any]]:
        """The session's jobs, the oldest first."""
        return [described(job) for job in session.jobs.values()]

    @app.get("/api/jobs/{job}")
    async def look(job: Own) -> dict[str, Any]:
        """State, progress, place in line and files of a job."""
        return described(job)

    @app.delete("/api/jobs/{job}")
    async def stop(job: Own) -> dict[str, Any]:
        """Stops a job; what was made stays."""
        job.stop()
        return described(job)

    @app.get("/api/jobs/{job}/files/{name}", response_class=Response)
    async def file(job: Own, name: str) -> Response:
        """One of the results, as far as it has been made."""
        results = await run_in_threadpool(job.results)
        if name not in results:
            raise HTTPException(404, "this job has no such file")
        return Response(results[name], media_type=MEDIA[name[name.rindex(".") :]])

    @app.websocket("/api/ws")
    async def page(socket: WebSocket) -> None:
        """Follows jobs: ``{"watch": ID}`` is answered by its states, and by blocks of its audio.

        The protocols are "wavegen" and the token, as browsers set no headers here. A block is announced by
        ``{"job": ID, "audio": SAMPLES}`` and is the binary message after it: int16, little endian, sample by sample,
        the clips side by side. The state in which a job has ended is the last message on it.
        """
        protocols = socket.scope["subprotocols"]
        session = sessions.find(protocols[1]) if len(protocols) == 2 else None
        if session is None:
            await socket.close(4401)
            return
        await socket.accept("wavegen")
        sending = asyncio.Lock()
        tasks: dict[str, asyncio.Task[None]] = {}

        async def watch(job: Job) -> None:
            async for block in follow(job):
                async with sending:
                    if block is not None:
                        await socket.send_json({"job": job.id, "audio": block.shape[1]})
                        await socket.send_bytes(block.astype("<i2").T.tobytes())
                    elif (state := described(job))["state"] in ("waiting", "running"):
                        await socket.send_json(state)
            # That it has ended is said after its last block.
            async with sending:
                await socket.send_json(described(job))

        try:
            while True:
                message = await socket.receive_json()
                wanted = message.get("watch") if isinstance(message, dict) else None
                if isinstance(wanted, str) and wanted in session.jobs and wanted not in tasks:
                    tasks[wanted] = asyncio.create_task(watch(session.jobs[wanted]))
        except (WebSocketDisconnect, ValueError, KeyError):
            pass  # It was closed, or what came was no JSON.
        finally:
            for task in tasks.values():
                task.cancel()

    return app


def serve(
    models: Mapping[str, Any],
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    password: str = "",
    allow_hosts: Sequence[str] = (),
) -> None:
    """Serves models until a signal ends it.

    Args:
        models: generators by name, from ``wavegen.load``.
        host: address to listen at.
        port: of it.
        password: begins a session.
        allow_hosts: names under which it is reached, besides localhost.

    Raises:
        WavegenError: the address is open to others and there is no password.

    Example:
        >>> import wavegen
        >>> from wavegen.app.server import serve
        >>> serve({"piano": wavegen.load()})  # doctest: +SKIP
    """
    if host not in LOCAL and not password:
        raise WavegenError(f"expected a password for an address that is open to others, got none for {host}")
    app = make_app(models, hosts=[*LOCAL, *allow_hosts], password=password)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        ws_max_size=BODY_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=2,
    )


def _error(status: int, field: str | None, message: str) -> Response:
    return JSONResponse({"error": {"field": field, "message": message}}, status)
