// Two accounts: accounts:overview, transfer, seed.

import { mutation } from "./api.js";
import { attempt, byId, showError } from "./dom.js";
import { subscribe } from "./live.js";

const SHOWN = 2;

const alertBox = byId("accounts-error");
const number = new Intl.NumberFormat();
let readFailed = false;

// One query for all figures: they come from one snapshot, and over one connection.
subscribe("accounts:overview", { first: SHOWN }, show, (error) => {
  readFailed = true;
  showError(alertBox, "The balances could not be read", error);
});

function show({ balances, total }) {
  if (readFailed) showError(alertBox);
  readFailed = false;
  const opened = balances.length === SHOWN;
  byId("no-accounts").hidden = opened;
  byId("with-accounts").hidden = !opened;
  balances.forEach((balance, account) => (byId(`balance-${account}`).textContent = number.format(balance)));
  byId("total").textContent = number.format(total);
}

byId("seed").addEventListener("click", async (event) => {
  await attempt(alertBox, "The accounts were not opened", [event.target], () =>
    mutation("accounts:seed", { accounts: 2, balance: 100 }),
  );
});

byId("transfer-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const from = Number(event.submitter?.value ?? 0);
  const transfer = { from, to: 1 - from, amount: Number(byId("amount").value) };
  const buttons = event.target.querySelectorAll("button");
  await attempt(alertBox, "Nothing was transferred", buttons, () => mutation("accounts:transfer", transfer));
});
