"""A token strip in the browser: a text whose tokens are coloured, hovered over, walked through and clicked.

An inline component without a build step. Every text goes in as data and is set as text, never as markup.
A strip holds all of its colourings; which one is in force says the control of
:mod:`pages._shared.token_colours`, in the browser, without a round through the server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

_HTML = '<div class="strip" role="listbox"></div><div class="tip" role="tooltip" hidden></div>'
_CSS = """
.strip { font-family: var(--st-font); font-size: 0.95rem; line-height: 1.75; color: var(--st-text-color);
  white-space: pre-wrap; overflow-wrap: anywhere; }
.token { padding: 0.12em 0; border-radius: 3px; cursor: pointer; outline-offset: 1px; }
.token:hover, .token:focus-visible { outline: 2px solid var(--st-text-color); }
.token[aria-selected=true] { outline: 3px solid var(--st-primary-color); }
.token.marked { border-left: 3px solid var(--st-text-color); padding-left: 2px; margin-left: 2px; }
.tip { position: fixed; z-index: 10; max-width: 22rem; padding: 0.4rem 0.6rem; font-family: var(--st-font);
  font-size: 0.8rem; white-space: pre-wrap; border-radius: 6px; pointer-events: none;
  color: var(--st-text-color); background: var(--st-background-color);
  border: 1px solid var(--st-border-color); }
.tip[hidden] { display: none; }
.empty { font-style: italic; }
"""
_JS = """
export default function ({ parentElement, data, setTriggerValue }) {
  const box = parentElement.querySelector(".strip");
  const tip = parentElement.querySelector(".tip");
  if (box.source !== data.strip) { box.source = data.strip; box.strip = JSON.parse(data.strip); }
  box.said = data;
  box.choose = (place) => setTriggerValue("clicked", place);
  if (!box.bound) { box.bound = true; listen(box, tip); }
  draw(box, data);
  paint(box);
}

function draw(box, data) {
  const before = box.querySelector(".empty");
  if (before) before.remove();
  const active = box.querySelector('[tabindex="0"]');
  box.strip.tokens.forEach(([text, about], index) => {
    let node = box.children[index];
    if (!node) {
      node = document.createElement("span");
      node.className = "token";
      node.setAttribute("role", "option");
      node.dataset.index = index;
      box.append(node);
    }
    const place = data.first + index;
    // Only what changed is set: whatever is set lays out the text again.
    if (node.text !== text) node.textContent = node.text = text;
    if (node.about !== about) {
      node.about = about;
      node.setAttribute("aria-label", about.replaceAll("\\n", "; "));
    }
    const standing = (place === data.selected) + "|" + (place === data.marked);
    if (node.standing !== standing) {
      node.standing = standing;
      node.setAttribute("aria-selected", place === data.selected);
      node.classList.toggle("marked", place === data.marked);
    }
  });
  while (box.children.length > box.strip.tokens.length) box.lastChild.remove();
  if (box.strip.tokens.length === 0) {
    const node = document.createElement("span");
    node.className = "empty";
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", false);
    node.textContent = data.nothing;
    box.append(node);
  }
  const reached = active?.parentNode ? active : box.children[0];
  for (const node of box.children) {
    const to = node === reached ? 0 : -1;
    if (node.getAttribute("tabindex") !== String(to)) node.tabIndex = to;
  }
}

function paint(box) {
  const colour = document.body.dataset.tokenColour ?? "";
  const { tokens, looks, colourings } = box.strip;
  const by = colourings[colour] ?? [];
  tokens.forEach((_, index) => {
    const node = box.children[index], look = looks[by[index]] ?? "";
    if (node.look !== look) node.style.cssText = node.look = look;
  });
  box.setAttribute("aria-label", box.said.label + (colour && ", coloured by " + colour));
}

function listen(box, tip) {
  const recolour = () => {
    if (box.isConnected) paint(box);
    else document.removeEventListener("token-colour", recolour);
  };
  document.addEventListener("token-colour", recolour);
  const token = (event) => event.target.closest(".token");
  const show = (node) => {
    if (!node) { tip.hidden = true; return; }
    const said = box.strip.tokens[Number(node.dataset.index)];
    if (!said) return;
    tip.textContent = said[1];
    tip.hidden = false;
    const at = node.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(at.left, innerWidth - own.width - 8)) + "px";
    const above = at.top - own.height - 6;
    tip.style.top = (above > 4 ? above : at.bottom + 6) + "px";
  };
  const focus = (node) => {
    if (!node) return;
    for (const each of box.children) each.tabIndex = -1;
    node.tabIndex = 0;
    node.focus();
  };
  const choose = (node) => box.choose(box.said.first + Number(node.dataset.index));
  box.addEventListener("mouseover", (event) => show(token(event)));
  box.addEventListener("mouseleave", () => show(null));
  box.addEventListener("focusin", (event) => show(token(event)));
  box.addEventListener("focusout", () => show(null));
  box.addEventListener("click", (event) => { const node = token(event); if (node) choose(node); });
  box.addEventListener("keydown", (event) => {
    const node = token(event);
    if (!node) return;
    const to = { ArrowRight: node.nextElementSibling, ArrowLeft: node.previousElementSibling,
      Home: box.firstElementChild, End: box.lastElementChild };
    if (event.key in to) { event.preventDefault(); focus(to[event.key]); }
    else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(node); }
    else if (event.key === "Escape") show(null);
  });
}
"""
_component = st.components.v2.component("token_strip", html=_HTML, css=_CSS, js=_JS)


@dataclass(frozen=True)
class ShownToken:
    """One token as it is shown.

    Attributes:
        text: What is written; it may be empty (a part of a letter).
        about: What hovering over it says, a line each.
        looks: In each colouring its colours as CSS, empty for the page's.
    """

    text: str
    about: str
    looks: tuple[str, ...]


def packed(tokens: Sequence[ShownToken], colourings: Sequence[str]) -> str:
    """Return a text with all of its colourings as the browser gets it.

    As one string, so that the browser reads it anew only if it changed; every look stands in it once.

    Args:
        tokens: The tokens, a look for each colouring.
        colourings: Their names.
    """
    every = (look for token in tokens for look in token.looks)
    looks = {look: number for number, look in enumerate(dict.fromkeys(every))}
    return json.dumps(
        {
            "tokens": [(token.text, token.about) for token in tokens],
            "looks": list(looks),
            "colourings": {
                name: [looks[token.looks[number]] for token in tokens]
                for number, name in enumerate(colourings)
            },
        }
    )


def show_token_strip(
    strip: str,
    key: str,
    *,
    label: str,
    first: int = 0,
    selected: int | None = None,
    marked: int | None = None,
    nothing: str = "No token yet.",
    on_choose: Callable[[int], None] | None = None,
) -> None:
    """Show a strip.

    Args:
        strip: What is shown, :func:`packed`.
        key: Names it on its page.
        label: What it is, for those who do not see it.
        first: The place of the first token.
        selected: The place of the token that was chosen.
        marked: The place of the first divergence.
        nothing: What stands there without tokens.
        on_choose: Told the place of a token that is clicked.
    """

    def choose() -> None:
        place = getattr(st.session_state[key], "clicked", None)
        if place is not None and on_choose is not None:
            on_choose(int(place))

    data: dict[str, Any] = {
        "strip": strip,
        "label": label,
        "first": first,
        "selected": selected,
        "marked": marked,
        "nothing": nothing,
    }
    _component(key=key, data=data, on_clicked_change=choose)
