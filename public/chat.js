// The chat: messages:list, send, edit, remove.

import { mutation } from "./api.js";
import { attempt, byId, element, showError } from "./dom.js";
import { subscribe } from "./live.js";

const MESSAGES_MAX = 50;
const CHANNELS_MAX = 6;
const NEAR_THE_END_PX = 80;

const list = byId("messages");
const scroll = byId("scroll");
const alertBox = byId("chat-error");
const author = byId("author");
const body = byId("body");

/** The rows on the page, by the message's id. */
const rows = new Map();
let channel;
let unsubscribe = () => {};
let listFailed = false;

// The name and the channels that this browser has seen.

const stored = (key, fallback) => {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback;
  }
};
const store = (key, value) => {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // A browser that keeps nothing still shows the chat.
  }
};

author.value = stored("convoke.author", "") || `guest-${100 + Math.floor(Math.random() * 900)}`;
store("convoke.author", author.value);
author.addEventListener("input", () => {
  store("convoke.author", author.value.trim());
  for (const row of rows.values()) row.classList.toggle("mine", isMine(row.message));
});

const isMine = (message) => message.author === author.value.trim();

// Channels. The address holds the current one, so that a link leads to it.

const channelOfAddress = () => {
  try {
    return decodeURIComponent(location.hash.slice(1)).trim() || "general";
  } catch {
    return "general";
  }
};

function openChannel() {
  const wanted = channelOfAddress();
  if (wanted === channel) return;
  channel = wanted;
  unsubscribe();
  rows.clear();
  list.replaceChildren();
  byId("empty").hidden = true;
  showError(alertBox);
  listFailed = false;
  byId("channel-title").textContent = `#${channel}`;
  body.placeholder = `Write to #${channel}`;
  document.title = `#${channel} – Convoke demo`;
  document.querySelector(".second").href = location.href;
  const known = stored("convoke.channels", []).filter((name) => name !== channel && name !== "general");
  const recent = channel === "general" ? known : [channel, ...known];
  store("convoke.channels", recent.slice(0, CHANNELS_MAX));
  showChannels(["general", ...recent.slice(0, CHANNELS_MAX)]);
  unsubscribe = subscribe("messages:list", { channel, limit: MESSAGES_MAX }, showMessages, showListError);
}

function showChannels(names) {
  byId("channels").replaceChildren(
    ...names.map((name) => {
      const link = element("a", { href: `#${encodeURIComponent(name)}`, textContent: `#${name}` });
      if (name === channel) link.setAttribute("aria-current", "page");
      return element("li", {}, link);
    }),
  );
}

byId("channel-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("channel-name");
  const name = input.value.trim().replace(/^#+/, "");
  if (!name) return;
  input.value = "";
  location.hash = encodeURIComponent(name);
  body.focus();
});
addEventListener("hashchange", openChannel);

// Messages. A row lives as long as its message, so that focus and an open editor survive every result.

function showMessages(messages) {
  if (listFailed) showError(alertBox);
  listFailed = false;
  const atTheEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_THE_END_PX;
  const ids = new Set(messages.map((message) => message._id));
  for (const [id, row] of rows) {
    if (ids.has(id)) continue;
    if (row.contains(document.activeElement)) body.focus();
    row.remove();
    rows.delete(id);
  }
  messages.forEach((message, index) => {
    const row = rows.get(message._id) ?? newRow(message._id);
    updateRow(row, message, messages[index - 1]);
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
  const empty = byId("empty");
  empty.hidden = messages.length > 0;
  empty.textContent = `Nothing in #${channel} yet. Write the first message, and watch it appear in a second window.`;
  if (atTheEnd) scroll.scrollTop = scroll.scrollHeight;
}

function showListError(error) {
  listFailed = true;
  showError(alertBox, "The messages could not be read", error);
}

function newRow(id) {
  const row = element("li", { className: "message" });
  row.head = element("p", { className: "by" });
  row.text = element("p", { className: "body" });
  const actions = element(
    "p",
    { className: "actions" },
    element("button", { type: "button", textContent: "Edit", onclick: () => edit(row) }),
    element("button", { type: "button", textContent: "Remove", onclick: (event) => remove(row, event.target) }),
  );
  row.bubble = element("div", { className: "bubble" }, row.text);
  row.append(row.head, row.bubble, actions);
  rows.set(id, row);
  return row;
}

function updateRow(row, message, before) {
  row.message = message;
  row.classList.toggle("mine", isMine(message));
  row.classList.toggle("goes-on", before?.author === message.author);
  const when = new Date(message._creationTime);
  const time = element("time", { dateTime: when.toISOString(), title: when.toLocaleString(), textContent: clock(when) });
  row.head.replaceChildren(element("b", { textContent: message.author }), " ", time);
  if (row.text.textContent !== message.body) row.text.textContent = message.body;
}

function clock(when) {
  const time = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (when.toDateString() === new Date().toDateString()) return time;
  return `${when.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

function edit(row) {
  if (row.editor) return;
  const text = element("textarea", { value: row.message.body, maxLength: 4000, required: true, ariaLabel: "Message" });
  const save = element("button", { className: "primary", textContent: "Save" });
  const close = () => {
    row.editor.remove();
    row.editor = undefined;
    row.classList.remove("editing");
    row.querySelector(".actions button").focus();
  };
  row.editor = element(
    "form",
    {
      className: "editor",
      onkeydown: (event) => event.key === "Escape" && close(),
      onsubmit: async (event) => {
        event.preventDefault();
        const change = { id: row.message._id, body: text.value.trim() };
        if (!change.body) return;
        const saved = await attempt(alertBox, "The change was not saved", [save], () => mutation("messages:edit", change));
        if (!saved || !row.editor) return;
        row.text.textContent = change.body;
        close();
      },
    },
    text,
    element("p", {}, save, element("button", { type: "button", textContent: "Cancel", onclick: close })),
  );
  sendsOnEnter(text, row.editor);
  row.classList.add("editing");
  row.bubble.append(row.editor);
  text.focus();
}

async function remove(row, button) {
  const id = row.message._id;
  await attempt(alertBox, "The message was not removed", [button], () => mutation("messages:remove", { id }));
}

// Writing.

byId("send-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = { channel, author: author.value.trim(), body: body.value.trim() };
  if (!message.author || !message.body) {
    (message.author ? body : author).focus();
    return;
  }
  const button = event.target.querySelector("button");
  const sent = await attempt(alertBox, "The message was not sent", [button], () => mutation("messages:send", message));
  if (!sent) return;
  if (body.value.trim() === message.body) body.value = "";
  fit(body);
  body.focus();
  scroll.scrollTop = scroll.scrollHeight;
});

function sendsOnEnter(text, form) {
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  text.addEventListener("input", () => fit(text));
  requestAnimationFrame(() => fit(text));
}

/** As high as its text, within what the style sheet allows. */
function fit(text) {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + text.offsetHeight - text.clientHeight}px`;
}

sendsOnEnter(body, byId("send-form"));
openChannel();
