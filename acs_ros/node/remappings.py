"""Remapping rules given at start that change nothing, because the node has no topic, service or action of that name.

rcl ignores such a rule without a word, and the node listens to a topic on which nobody publishes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rclpy.node import Node

from acs_core.plain_text import MOST, nearest, one_line

MISSPELT = 0.75  # likeness from which a name is taken for another one: "max_speed" is no "seed"
HINTED = 0.6  # likeness from which a name is offered for one that is certainly wrong
# Rules for them are given to all nodes of a launch file or robot; they matter only to those that use them.
SHARED = {"tf", "tf_static", "clock", "bond", "diagnostics", "rosout", "parameter_events"}
MAX_NAME = 100  # characters of a name in a message


@dataclass(frozen=True)
class Remapping:
    """One rule ``NODE:NAME:=WANTED``.

    Attributes:
        node: Name of the node that the rule is for; "" for all.
        name: The node's name of a topic or service, like ``~/image``.
        wanted: The name that it is to have.
    """

    node: str
    name: str
    wanted: str


def full_topic_name(name: str, node: Node) -> str:
    """``name`` with the namespace, or for ``~`` the full name, of ``node``; not remapped."""
    if name.startswith("/"):
        return name
    if name.startswith("~"):
        return f"{node.get_fully_qualified_name()}/{name[1:].lstrip('/')}"
    return f"{node.get_namespace().rstrip('/')}/{name}"


def names_of(node: Node) -> set[str]:
    """Full names of the topics, services and actions that ``node`` has now."""
    own = node.get_name(), node.get_namespace()
    listed = (
        *node.get_publisher_names_and_types_by_node(*own),
        *node.get_subscriber_names_and_types_by_node(*own),
        *node.get_service_names_and_types_by_node(*own),
    )
    return {name.partition("/_action/")[0] for name, _ in listed}


def without_effect(rules: Iterable[Remapping], node: Node, inputs: Mapping[str, str]) -> str:
    """Message about the ``rules`` that change nothing in ``node``, or "".

    A rule that matched has given one of the node's topics, services or actions the wanted name. Of rules for all nodes,
    such as a launch file gives to a group of them, those are left out that are not likely to be meant for this one.

    Args:
        rules: The rules given at start; those for other nodes are left out.
        node: The node, with all of its publishers and services.
        inputs: Topics that it subscribes to at times: their full names by its own.
    """
    own = {*names_of(node), *inputs.values()}
    prefix = f"{node.get_fully_qualified_name()}/"
    known = [*(name.removeprefix("~/") for name in inputs)]
    known += [name.removeprefix(prefix) for name in own if name.startswith(prefix)]
    said = []
    for rule in rules:
        if rule.node not in ("", node.get_name()) or full_topic_name(rule.wanted, node) in own:
            continue
        full, bare = full_topic_name(rule.name, node), rule.name.lstrip("~/")
        is_private = full.startswith(prefix)
        bare = full.removeprefix(prefix) if is_private else bare
        near = nearest(bare, known, likeness=HINTED if is_private or rule.node else MISSPELT)
        if not is_private and (bare in SHARED or not (rule.node or near)):
            continue
        hint = f" (did you mean ~/{near}?)" if near and f"~/{near}" != rule.name else ""
        said.append(f"{one_line(f'{rule.name}:={rule.wanted}', MAX_NAME)}{hint}")
    if not said:
        return ""
    more = f" and {len(said) - MOST} more" if len(said) > MOST else ""
    one = "the remapping" if len(said) == 1 else "the remappings"
    verb = "changes" if len(said) == 1 else "change"
    return (
        f"{one} {', '.join(said[:MOST])}{more} {verb} nothing: with these parameters, the node has no topic, "
        "service or action of that name"
    )
