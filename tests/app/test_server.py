"""The server by HTTP alone: what a script may ask, what it is answered, and all that is refused."""

import io
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="the server needs pip install 'wavegen[app]'")
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from wavegen.app import sessions
from wavegen.app.server import POLICY, make_app, serve
from wavegen.app.tasks import TASKS, name_of
from wavegen.app.uploads import BYTES, SECONDS
from wavegen.audio import Audio
from wavegen.errors import WavegenError
from wavegen.generation.audio import AudioGenerator
from wavegen.generation.masked import MaskedGenerator
from wavegen.generation.notes import NoteGenerator
from wavegen.notes.midi import midi_bytes, parse_midi
from wavegen.notes.score import Score, Track

RATE, BLOCK = 8000, 400
GATE = threading.Semaphore(0)
"""Lets blocks pass of clips whose seed is 99."""


def experiment(kind: str, *fields: str) -> SimpleNamespace:
    return SimpleNamespace(model=SimpleNamespace(kind=kind, label_fields=fields))


class Piano(AudioGenerator):
    """Plays notes as a constant that is the seed's."""

    config, labels, sample_rate, plays = experiment("wavenet"), {}, RATE, True
    network = SimpleNamespace(local=SimpleNamespace(of_notes=lambda played, samples: None))

    def stream(self, seconds=None, *, chunk, progress, notes, seed, count, labels, drawing):
        total = round(notes.seconds * RATE)
        progress("drawing", 0, total)
        for first in range(0, total, chunk):
            if seed == 99:
                assert GATE.acquire(timeout=10)
            yield np.full((count, min(chunk, total - first)), (seed % 64) / 64, np.float32)
            progress("drawing", min(first + chunk, total), total)


class Masked(MaskedGenerator):
    """Returns what it is given, turned upside down."""

    config, labels, sample_rate = experiment("bert", "digit"), {"digit": ("0", "1")}, RATE

    def vary(self, audio, strength, *, progress, seed, count, labels, drawing):
        progress("drawing", 0, 1)
        return [Audio(-audio.samples, audio.sample_rate)] * count


class Chorales(NoteGenerator):
    """Returns the pieces that it is given."""

    config, labels, masked, network = experiment("bert"), {}, True, None
    codec = SimpleNamespace(plain=None)

    def remix(self, notes, share, what, *, progress, seed, count, labels, drawing):
        return [notes] * count


MODELS = {
    name: object.__new__(kind) for name, kind in (("piano", Piano), ("bert", Masked), ("notes", Chorales))
}
PIECE = Score(*(np.array([value]) for value in (60, 0, 480, 80, 0)), (Track(),))


def wav(seconds: float, format: str = "WAV", rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.linspace(-0.5, 0.5, round(seconds * rate)), rate, format=format)
    return file.getvalue()


@pytest.fixture
def client():
    with TestClient(make_app(MODELS, hosts=["localhost"]), base_url="http://localhost") as client:
        yield client


def begin(client, password="") -> dict[str, str]:
    answer = client.post("/api/session", json={"password": password})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['token']}"}


def play(**changes) -> dict:
    return {"task": "play", "model": "piano", "notes": "tempo 120, C4 1/2"} | changes


def ended(client, own, job: str) -> dict:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        state = client.get(f"/api/jobs/{job}", headers=own).json()
        if state["state"] in ("done", "stopped", "failed"):
            return state
        time.sleep(0.02)
    raise AssertionError(state)


def test_models_are_listed_with_what_each_can_do(client):
    listed = {model["name"]: model for model in client.get("/api/models", headers=begin(client)).json()}
    assert {name: model["tasks"] for name, model in listed.items()} == {
        "piano": ["play"],
        "bert": ["generate", "inpaint", "vary"],
        "notes": ["compose", "remix"],
    }
    assert listed["bert"]["labels"] == {"digit": ["0", "1"]}
    assert {name_of(task) for task in TASKS} == {
        *("play", "generate", "inpaint", "vary", "compose", "harmonise", "remix")
    }


def test_notes_are_played_and_come_back_as_audio(client):
    own = begin(client)
    job = client.post("/api/jobs", json=play(seed=32, count=2), headers=own)
    assert job.status_code == 201
    state = ended(client, own, job.json()["job"])
    assert (state["state"], state["done"], state["total"]) == ("done", 2000, 2000)
    assert state["files"] == ["0.wav", "1.wav"]
    answer = client.get(f"/api/jobs/{state['job']}/files/1.wav", headers=own)
    assert answer.headers["content-type"] == "audio/wav"
    samples, rate = soundfile.read(io.BytesIO(answer.content), dtype="int16")
    assert (len(samples), rate, {*samples}) == (2000, RATE, {16384})
    assert [each["job"] for each in client.get("/api/jobs", headers=own).json()] == [state["job"]]


def test_the_socket_sends_audio_while_it_is_made(client):
    own = begin(client)
    job = client.post("/api/jobs", json=play(seed=99), headers=own).json()["job"]
    with client.websocket_connect(
        "ws://localhost/api/ws", subprotocols=["wavegen", own["Authorization"].split()[1]]
    ) as socket:
        socket.send_json({"watch": "another"})
        socket.send_json({"watch": job})
        made = 0
        GATE.release(2)
        while made < 2 * BLOCK:
            message = socket.receive()
            made += len(message.get("bytes") or b"") // 2
        assert client.get(f"/api/jobs/{job}", headers=own).json()["state"] == "running"
        client.delete(f"/api/jobs/{job}", headers=own)
        GATE.release()
        while '"stopped"' not in (message.get("text") or ""):
            message = socket.receive()
            made += len(message.get("bytes") or b"") // 2
    answer = client.get(f"/api/jobs/{job}/files/0.wav", headers=own)
    assert len(soundfile.read(io.BytesIO(answer.content))[0]) == made < 2000
    while GATE.acquire(blocking=False):
        pass


def test_uploads_are_recognised_changed_and_downloaded(client):
    own = begin(client)
    piece = client.post("/api/uploads", content=midi_bytes(PIECE), headers=own).json()
    assert (piece["kind"], piece["notes"]) == ("notes", 1)
    asked = {"task": "remix", "model": "notes", "upload": piece["upload"]}
    job = ended(client, own, client.post("/api/jobs", json=asked, headers=own).json()["job"])
    answer = client.get(f"/api/jobs/{job['job']}/files/0.mid", headers=own)
    assert parse_midi(answer.content).pitch.tolist() == [60]

    recording = client.post("/api/uploads", content=wav(0.5), headers=own).json()
    assert (recording["kind"], recording["seconds"], recording["channels"]) == ("audio", 0.5, 1)
    asked = {"task": "vary", "model": "bert", "upload": recording["upload"], "labels": {"digit": "1"}}
    job = ended(client, own, client.post("/api/jobs", json=asked, headers=own).json()["job"])
    answer = client.get(f"/api/jobs/{job['job']}/files/0.wav", headers=own)
    np.testing.assert_allclose(soundfile.read(io.BytesIO(answer.content))[0][0], 0.5, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "field", "message"),
    [
        (play(notes="H4 1"), "notes", "expected a note like"),
        (play(notes=""), "notes", "expected notes of at most 120 seconds, got 0.0"),
        (play(notes="tempo 2, C4 6"), "notes", "expected notes of at most 120 seconds, got 180.0"),
        (play(seed=-1), "seed", "greater than or equal to 0"),
        (play(count=5), "count", "less than or equal to 4"),
        (play(temperature=3), "temperature", "less than or equal to 2"),
        (play(upload="x"), "upload", "expected an uploaded MIDI file of this session"),
        (play(tune=1), "tune", "Extra inputs are not permitted"),
        (play(model="organ"), "model", "there is no model 'organ'; there are piano, bert, notes"),
        (play(model="bert"), "task", "bert cannot play"),
        (play(labels={"digit": "1"}), "labels", "this model has no label field 'digit'; it has none"),
        ({"task": "vary", "model": "bert", "upload": "x"}, "upload", "expected an uploaded recording"),
        (
            {"task": "generate", "model": "bert", "labels": {"digit": "7"}},
            "labels",
            "label digit=7 was not in the training data",
        ),
        ({"task": "generate", "model": "bert", "seconds": 1e9}, "seconds", "less than or equal to 120"),
    ],
)
def test_what_is_wrong_is_said_at_once_and_names_the_field(client, asked, field, message):
    own = begin(client)
    answer = client.post("/api/jobs", json=asked, headers=own)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field
    assert message in answer.json()["error"]["message"]
    assert client.get("/api/jobs", headers=own).json() == []


def test_a_session_has_its_own_jobs_and_uploads_alone(client):
    own, other = begin(client), begin(client)
    job = client.post("/api/jobs", json=play(), headers=own).json()["job"]
    upload = client.post("/api/uploads", content=midi_bytes(PIECE), headers=own).json()["upload"]
    ended(client, own, job)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/files/0.wav")):
        answer = client.request(method, f"/api/jobs/{job}{path}", headers=other)
        assert (answer.status_code, answer.json()["error"]["message"]) == (
            404,
            "this session has no such job",
        )
        assert client.request(method, f"/api/jobs/{job}{path}").status_code in (401, 403)
    answer = client.post("/api/jobs", json=play(upload=upload), headers=other)
    assert answer.json()["error"]["field"] == "upload"
    wrong = {"Authorization": "Bearer x"}
    assert client.get("/api/jobs", headers=wrong).status_code == 401
    with (
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect("ws://localhost/api/ws", subprotocols=["wavegen", "x"]),
    ):
        pass
    assert closed.value.code == 4401


def test_a_session_may_have_four_jobs_that_wait(client):
    own = begin(client)
    jobs = [client.post("/api/jobs", json=play(seed=99), headers=own).json() for _ in range(4)]
    assert [job["ahead"] for job in jobs[2:]] == [2, 3]
    answer = client.post("/api/jobs", json=play(), headers=own)
    assert "4 jobs of this session are waiting or running" in answer.json()["error"]["message"]
    for job in jobs:
        client.delete(f"/api/jobs/{job['job']}", headers=own)
    GATE.release()
    assert {ended(client, own, job["job"])["state"] for job in jobs} == {"stopped"}
    while GATE.acquire(blocking=False):
        pass


def test_what_is_kept_is_bounded(client, monkeypatch):
    own = begin(client)
    uploads = [
        client.post("/api/uploads", content=wav(0.1), headers=own).json()["upload"]
        for _ in range(sessions.UPLOADS + 1)
    ]
    asked = {"task": "vary", "model": "bert"}
    statuses = [
        client.post("/api/jobs", json=asked | {"upload": name}, headers=own).status_code
        for name in (uploads[0], uploads[1])
    ]
    assert statuses == [422, 201]
    monkeypatch.setattr(sessions, "UPLOAD_BYTES", 3 * 4 * 800)
    client.post("/api/uploads", content=wav(0.1), headers=own)
    answer = client.post("/api/jobs", json=asked | {"upload": uploads[-3]}, headers=own)
    assert answer.json()["error"]["field"] == "upload"
    monkeypatch.setattr(sessions, "MOST", 1)
    assert client.post("/api/session", json={}).status_code == 422
    ended(client, own, client.get("/api/jobs", headers=own).json()[-1]["job"])
    monkeypatch.setattr(sessions, "IDLE_SECONDS", -1.0)
    assert client.get("/api/jobs", headers=own).status_code == 401


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (b"", 422, "expected a recording or a MIDI file, got neither"),
        (b"MThd", 422, "MIDI header"),
        (b"\0" * (BYTES + 1), 413, f"expected at most {BYTES} bytes"),
        (wav(SECONDS + 1, "FLAC", 100), 422, f"of at most {SECONDS} seconds"),
        (wav(0), 422, "not empty"),
    ],
    ids=["nothing", "cut MIDI", "too large", "too long", "no samples"],
)
def test_uploads_that_cannot_be_used_are_one_line(client, data, status, message):
    answer = client.post("/api/uploads", content=data, headers=begin(client))
    assert answer.status_code == status
    assert answer.json()["error"]["field"] is None
    assert message in answer.json()["error"]["message"]


def test_other_bodies_are_small_and_other_paths_are_not_there(client):
    own = begin(client)
    assert client.post("/api/jobs", json=play(notes="C4 1, " * 20_000), headers=own).status_code == 413
    assert client.post("/api/jobs", content=iter([b"{}"]), headers=own).status_code == 413
    for path in ("/", "/docs", "/api/jobs/x/files/..%2f..%2fsecret", "/%2e%2e/etc/passwd", "//etc/passwd"):
        answer = client.get(path, headers=own)
        assert answer.status_code == 404
        assert answer.json()["error"]["field"] is None


def test_every_answer_forbids_what_is_from_elsewhere(client):
    for answer in (client.get("/api/openapi.json"), client.get("/nothing"), client.get("/api/models")):
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "/api/jobs/{job}" in client.get("/api/openapi.json").json()["paths"]


def test_a_foreign_host_is_refused(client):
    assert client.get("/api/openapi.json", headers={"Host": "evil.example"}).status_code == 400


def test_a_password_begins_a_session():
    with TestClient(
        make_app(MODELS, hosts=["localhost"], password="word"), base_url="http://localhost"
    ) as client:
        answer = client.post("/api/session", json={"password": "other"})
        assert answer.json() == {"error": {"field": "password", "message": "this is not the password"}}
        assert client.get("/api/models", headers=begin(client, "word")).status_code == 200


def test_an_open_address_needs_a_password():
    with pytest.raises(WavegenError, match="expected a password for an address that is open to others"):
        serve(MODELS, host="0.0.0.0")
