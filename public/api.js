// Calls of the project's functions over HTTP. What goes wrong is a CallError with a code and words for people.

const TIMEOUT_MS = 10_000;

export class CallError extends Error {
  constructor(code, message, details) {
    super(message);
    this.code = code;
    this.details = details;
  }

  /** The server was not reached, or could not serve: worth another try. */
  get isOutage() {
    return this.code === "OFFLINE" || this.code === "OVERLOADED";
  }
}

export const query = (path, args) => call("query", path, args);
export const mutation = (path, args) => call("mutation", path, args);

async function call(kind, path, args) {
  let response;
  let answer;
  try {
    response = await fetch(`/api/${kind}/${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(args),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    answer = await response.json();
  } catch (cause) {
    if (response === undefined || response.status >= 502) throw new CallError("OFFLINE", "the server does not answer");
    throw new CallError("INTERNAL", `the server's answer is not JSON (${cause.message})`);
  }
  if (answer.ok) return answer.data;
  const { code = "INTERNAL", message = `the server answered ${response.status}`, details } = answer.error ?? {};
  throw new CallError(code, message, details);
}
