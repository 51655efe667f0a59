"""The three model APIs that the CLIs speak: reads what a request says, writes an answer whole or as a stream of events.

Anthropic messages, OpenAI responses, Gemini generateContent; as much of them as the CLIs look at. Knows nothing of
rules, logs and sockets. Standard library only.
"""

import dataclasses
import json
import uuid
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
PIECE = 12  # characters of an answer in one event


@dataclasses.dataclass(frozen=True)
class Said:
    """One thing in a conversation; `who`: user, model, tool (a tool's result) or system."""

    who: str
    text: str


@dataclasses.dataclass(frozen=True)
class Request:
    said: list[Said]
    tools: dict[str, Json]  # full name -> what a call must repeat of it


@dataclasses.dataclass(frozen=True)
class Answer:
    text: str = ""
    tool: str = ""  # full name of a tool to call instead
    arguments: Json = dataclasses.field(default_factory=dict)
    tool_fields: Json = dataclasses.field(default_factory=dict)
    delay_sec: float = 0.0  # before the first byte
    pace_sec: float = 0.002  # after each piece

    def pieces(self) -> list[str]:
        return [self.text[i : i + PIECE] for i in range(0, len(self.text), PIECE)] or [""]


@dataclasses.dataclass(frozen=True)
class Event:
    data: Json
    named: bool = True  # the stream says data["type"] a second time, as the event's name
    piece: bool = False  # a piece of text: the pace counts


def new_id(prefix: str) -> str:
    return prefix + uuid.uuid4().hex[:16]


def parts_of(content: Any) -> list[Json]:
    """A content field: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content or [] if isinstance(part, dict)]


class Anthropic:
    path = "/v1/messages"

    def streams(self, path: str, body: Json) -> bool:
        return bool(body.get("stream"))

    def read(self, body: Json) -> Request:
        said = []
        for message in body.get("messages", []):
            who = {"assistant": "model"}.get(message["role"], message["role"])
            for part in parts_of(message.get("content")):
                match part.get("type"):
                    case "text":
                        said.append(Said(who, part["text"]))
                    case "tool_result":
                        said.append(Said("tool", json.dumps(part.get("content"))))
                    case "tool_use":
                        said.append(Said("model", part["name"]))
        return Request(said, {tool["name"]: {} for tool in body.get("tools") or [] if "name" in tool})

    def whole(self, body: Json, answer: Answer) -> Json:
        block: Json = {"type": "text", "text": answer.text}
        if answer.tool:
            block = {"type": "tool_use", "id": new_id("toolu_"), "name": answer.tool, "input": answer.arguments}
        return {
            "id": new_id("msg_"),
            "type": "message",
            "role": "assistant",
            "model": body.get("model"),
            "content": [block],
            "stop_reason": "tool_use" if answer.tool else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }

    def stream(self, body: Json, answer: Answer) -> Iterator[Event]:
        whole = self.whole(body, answer)
        block = whole["content"][0]
        empty: Json = {"input": {}} if answer.tool else {"text": ""}
        yield Event({"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}})
        yield Event({"type": "content_block_start", "index": 0, "content_block": {**block, **empty}})
        deltas: list[Json] = [{"type": "text_delta", "text": piece} for piece in answer.pieces()]
        if answer.tool:
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(answer.arguments)}]
        for delta in deltas:
            yield Event({"type": "content_block_delta", "index": 0, "delta": delta}, piece=True)
        yield Event({"type": "content_block_stop", "index": 0})
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield Event({"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}})
        yield Event({"type": "message_stop"})


class Gemini:
    path = "enerateContent"  # :generateContent, :streamGenerateContent

    def streams(self, path: str, body: Json) -> bool:
        return ":stream" in path

    def read(self, body: Json) -> Request:
        said = []
        for content in body.get("contents", []):
            for part in content.get("parts", []):
                if "functionResponse" in part:
                    said.append(Said("tool", json.dumps(part["functionResponse"].get("response"))))
                elif "functionCall" in part:
                    said.append(Said("model", part["functionCall"]["name"]))
                elif "text" in part and not part.get("thought"):
                    said.append(Said(content.get("role", "user"), part["text"]))
        groups = [tool.get("functionDeclarations") or [] for tool in body.get("tools") or []]
        return Request(said, {declared["name"]: {} for group in groups for declared in group})

    def whole(self, body: Json, answer: Answer) -> Json:
        part: Json = {"text": answer.text}
        if answer.tool:
            part = {"functionCall": {"name": answer.tool, "args": answer.arguments}}
        return self._response(part, last=True)

    def stream(self, body: Json, answer: Answer) -> Iterator[Event]:
        if answer.tool:
            yield Event(self.whole(body, answer), named=False)
            return
        *pieces, last = answer.pieces()
        for piece in pieces:
            yield Event(self._response({"text": piece}, last=False), named=False, piece=True)
        yield Event(self._response({"text": last}, last=True), named=False, piece=True)

    def _response(self, part: Json, *, last: bool) -> Json:
        candidate: Json = {"index": 0, "content": {"role": "model", "parts": [part]}}
        if last:
            candidate["finishReason"] = "STOP"
        usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
        return {"candidates": [candidate], "responseId": new_id("r"), "modelVersion": "mock", "usageMetadata": usage}


class Responses:
    path = "/responses"

    def streams(self, path: str, body: Json) -> bool:
        return bool(body.get("stream"))

    def read(self, body: Json) -> Request:
        said = []
        items = body.get("input") or []
        for item in [{"role": "user", "content": items}] if isinstance(items, str) else items:
            match item.get("type", "message"):
                case "message":
                    who = {"assistant": "model", "developer": "system"}.get(item["role"], item["role"])
                    said += [Said(who, part["text"]) for part in parts_of(item.get("content")) if "text" in part]
                case "function_call_output" | "custom_tool_call_output":
                    said.append(Said("tool", json.dumps(item.get("output"))))
                case "function_call" | "custom_tool_call":
                    said.append(Said("model", item["name"]))
        return Request(said, self._tools(body))

    def _tools(self, body: Json) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for tool in body.get("tools") or []:
            if tool.get("type") == "namespace":  # tools of MCP servers; a call names both
                for inner in tool.get("tools") or []:
                    call = {"name": inner["name"], "namespace": tool["name"]}
                    found[f"{tool['name']}.{inner['name']}"] = call
            else:
                name = tool.get("name") or tool.get("type", "")
                found[name] = {"name": name}
        return found

    def whole(self, body: Json, answer: Answer) -> Json:
        content = [{"type": "output_text", "text": answer.text, "annotations": []}]
        item: Json = {"type": "message", "id": new_id("msg_"), "role": "assistant", "content": content}
        if answer.tool:
            item = {"type": "function_call", "id": new_id("fc_"), "call_id": new_id("call_"), **answer.tool_fields}
            item["arguments"] = json.dumps(answer.arguments)
        return {
            "id": new_id("resp_"),
            "object": "response",
            "created_at": 0,
            "model": body.get("model"),
            "status": "completed",
            "output": [{**item, "status": "completed"}],
            "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
        }

    def stream(self, body: Json, answer: Answer) -> Iterator[Event]:
        whole = self.whole(body, answer)
        item = whole["output"][0]
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        yield Event({"type": "response.created", "response": begun})
        empty: Json = {} if answer.tool else {"content": []}
        added = {**item, **empty, "status": "in_progress"}
        yield Event({"type": "response.output_item.added", "output_index": 0, "item": added})
        for piece in [] if answer.tool else answer.pieces():
            where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
            yield Event({"type": "response.output_text.delta", **where, "delta": piece}, piece=True)
        yield Event({"type": "response.output_item.done", "output_index": 0, "item": item})
        yield Event({"type": "response.completed", "response": whole})


DIALECTS = (Anthropic(), Gemini(), Responses())
