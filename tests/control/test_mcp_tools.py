"""The table of MCP tools: schemas that fit their names, words for models, and unknown arguments."""

import pytest

from cspd.control.mcp.tools import TOOLS, Tool, named_tool
from cspd.errors import CspError

pytestmark = pytest.mark.pure

every_tool = pytest.mark.parametrize("tool", TOOLS.values(), ids=list(TOOLS))


def test_the_tools_are_those_that_the_introduction_and_the_manual_name() -> None:
    assert list(TOOLS) == ["send_message", "ask", "read_messages", "list_agents", "room_state", "wait_for"]


@every_tool
def test_a_tool_says_what_each_argument_is_and_which_ones_it_needs(tool: Tool) -> None:
    schema = tool.describe()["inputSchema"]
    assert set(schema["required"]) <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert all("type" in each and each["description"] for each in schema["properties"].values())


@every_tool
def test_a_tool_promises_every_field_of_its_result(tool: Tool) -> None:
    schema = tool.describe()["outputSchema"]
    assert schema["type"] == "object"
    assert set(schema["required"]) == set(schema["properties"]) != set()


def test_only_what_speaks_is_said_to_change_anything() -> None:
    assert {name for name, tool in TOOLS.items() if not tool.reads} == {"send_message", "ask"}


def test_an_argument_that_no_tool_knows_is_named_with_the_nearest_one() -> None:
    with pytest.raises(CspError, match=r"arguments: 'contant': not known \(did you mean 'content'\?\)"):
        TOOLS["send_message"].check_names({"to": "bob", "contant": "x"})
    with pytest.raises(CspError, match="known: none"):
        TOOLS["list_agents"].check_names({"x": 1})


@pytest.mark.parametrize("name", ["send_mesage", "", None, 3, ["send_message"]])
def test_a_tool_that_there_is_not_is_refused_in_one_sentence(name: object) -> None:
    with pytest.raises(CspError) as refused:
        named_tool(name)
    assert refused.value.code == "invalid-params"
    assert "\n" not in str(refused.value)
