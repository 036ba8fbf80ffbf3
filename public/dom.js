// The few helpers that the parts of the page share. Text only ever becomes a text node, never markup.

export const byId = (id) => document.getElementById(id);

/** An element with properties and children. */
export function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** Shows `what` went wrong in the alert `node`; nothing to show hides it. */
export function showError(node, what, error) {
  node.hidden = !error;
  node.textContent = error ? `${what}: ${error.message}.`.replace(/([.!?])\.$/, "$1") : "";
}

/** Runs a call of the page with its buttons off, and shows an error in `alert`. Returns whether it worked. */
export async function attempt(alert, what, buttons, work) {
  for (const button of buttons) button.disabled = true;
  try {
    await work();
    showError(alert);
    return true;
  } catch (error) {
    showError(alert, what, error);
    return false;
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

const WORDS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Connection lost, reconnecting",
  paused: "Paused while other windows are live",
};

/** The state of the connection, for everybody to see. */
export function showStatus(state) {
  const node = byId("status");
  if (node.dataset.state === state) return;
  node.dataset.state = state;
  node.textContent = WORDS[state];
}
