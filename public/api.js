// Calls of the project's functions over HTTP. What goes wrong is a CallError with a code and words for people.

const TIMEOUT_MS = 10_000;

/** The code of a server that was not reached. */
export const OFFLINE = "OFFLINE";

export class CallError extends Error {
  constructor(code, message, details) {
    super(message);
    this.code = code;
    this.details = details;
  }

  /** The server was not reached, or could not serve: worth another try. */
  get isOutage() {
    return this.code === OFFLINE || this.code === "OVERLOADED";
  }
}

/** Calls a mutation; gives its result. */
export async function mutation(path, args) {
  const response = await fetch(`/api/mutation/${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(args),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }).catch(() => {
    throw new CallError(OFFLINE, "the server does not answer");
  });
  if (!response.ok) throw await errorOf(response);
  return (await answerOf(response)).data;
}

/** The error that an answer holds. */
export async function errorOf(response) {
  const { error = {} } = await answerOf(response);
  const { code = "INTERNAL", message = `the server answered ${response.status}`, details } = error;
  return new CallError(code, message, details);
}

async function answerOf(response) {
  try {
    return await response.json();
  } catch (cause) {
    if (response.status >= 502) throw new CallError(OFFLINE, "the server does not answer");
    throw new CallError("INTERNAL", `the server's answer is not JSON (${cause.message})`);
  }
}
