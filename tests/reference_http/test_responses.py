"""``/v1/responses``: create, stream, retrieve, cancel, forget."""

from __future__ import annotations

import json
from typing import Any

from gaugeblock.reference.engine.http.response_store import Record, ResponseStore

PATH = "/v1/responses"


def create(client: Any, **body: Any) -> Any:
    reply = client.post(PATH, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def text(response: Any) -> str:
    return "".join(part["text"] for item in response["output"] for part in item["content"])


def record(name: str, status: str = "completed") -> Record:
    return Record({"id": name, "status": status}, [])


def test_a_response_is_that_of_chat(client: Any) -> None:
    response = create(client, input="hi", max_output_tokens=5)
    chat = client.post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    ).json()
    assert text(response) == chat["choices"][0]["message"]["content"]
    assert response["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert client.get(f"{PATH}/{response['id']}").json() == response


def test_a_stopped_response_is_completed(client: Any) -> None:
    assert create(client, input="hi", stop="]")["status"] == "completed"


def test_events_tell_the_same_story(client: Any) -> None:
    reply = client.post(PATH, json={"input": "hé", "max_output_tokens": 9, "stream": True})
    frames = [frame.split("\n") for frame in reply.text.split("\n\n") if frame]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name.removeprefix("event: ") for name, _ in frames] == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    deltas = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert deltas == events[-4]["text"] == text(events[-1]["response"]) == "[user]hé"
    assert events[0]["response"]["status"] == "in_progress"
    assert client.get(f"{PATH}/{events[0]['response']['id']}").json() == events[-1]["response"]


def test_a_conversation_goes_on_without_the_old_instructions(client: Any, fake: Any) -> None:
    first = create(client, input="a", max_output_tokens=1, instructions="Be brief.")
    create(client, input=[{"role": "user", "content": "b"}], max_output_tokens=1, previous_response_id=first["id"])
    sent = [bytes(request.input_ids).decode() for request in fake.submitted]
    assert sent == [
        "[system]Be brief.\n[user]a\n[assistant]",
        f"[user]a\n[assistant]{text(first)}\n[user]b\n[assistant]",
    ]


def test_a_background_response_is_cancelled(client: Any, fake: Any) -> None:
    fake.gate.clear()
    response = create(client, input="a", max_output_tokens=40, background=True)
    assert response["status"] == "in_progress"
    name = response["id"]
    assert client.get(f"{PATH}/{name}").json()["status"] == "in_progress"
    assert client.post(f"{PATH}/{name}/cancel").json()["status"] == "cancelled"
    assert client.get(f"{PATH}/{name}").json()["status"] == "cancelled"
    assert client.post(f"{PATH}/{name}/cancel").json()["status"] == "cancelled"
    assert client.app.state.front.tasks == set()


def test_what_is_not_stored_is_forgotten(client: Any) -> None:
    response = create(client, input="a", max_output_tokens=1, store=False)
    assert client.get(f"{PATH}/{response['id']}").status_code == 404
    assert len(client.app.state.front.responses) == 0


def test_the_store_is_bounded_and_keeps_what_is_live() -> None:
    store = ResponseStore(capacity=2)
    store.add(record("live", "in_progress"))
    for name in ("a", "b", "c"):
        store.add(record(name))
    assert len(store) == 2
    assert [store.get(name) is not None for name in ("live", "a", "b", "c")] == [True, False, False, True]
