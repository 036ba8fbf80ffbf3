// Two accounts: accounts:balance, total, transfer, seed.

import { mutation } from "./api.js";
import { attempt, byId, showError } from "./dom.js";
import { refresh, subscribe } from "./live.js";

const alertBox = byId("accounts-error");
const number = new Intl.NumberFormat();

for (const account of [0, 1]) {
  subscribe("accounts:balance", { account }, (balance) => show(`balance-${account}`, balance), failed);
}
subscribe("accounts:total", {}, (total) => show("total", total), failed);

function show(id, value) {
  const known = typeof value === "number";
  byId(id).textContent = known ? number.format(value) : "–";
  if (id !== "total") showPanel(known);
}

function showPanel(open) {
  byId("no-accounts").hidden = open;
  byId("with-accounts").hidden = !open;
}

/** An account that is not there is a fact to show, an outage is the status line's business; the rest is an error. */
function failed(error) {
  if (error.isOutage) return;
  if (error.code === "INTERNAL") showError(alertBox, "The balances could not be read", error);
  else showPanel(false);
}

byId("seed").addEventListener("click", async (event) => {
  await attempt(alertBox, "The accounts were not opened", [event.target], () =>
    mutation("accounts:seed", { accounts: 2, balance: 100 }),
  );
  refresh();
});

byId("transfer-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const from = Number(event.submitter?.value ?? 0);
  const transfer = { from, to: 1 - from, amount: Number(byId("amount").value) };
  const buttons = event.target.querySelectorAll("button");
  await attempt(alertBox, "Nothing was transferred", buttons, () => mutation("accounts:transfer", transfer));
  refresh();
});
