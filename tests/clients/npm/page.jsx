// The page that react.mjs opens: a chat by Convex' React client. Each state that was rendered is in `window.rendered`.

import { ConvexProvider, ConvexReactClient, useMutation, usePaginatedQuery, useQuery } from "convex/react";
import { anyApi as api } from "convex/server";
import { useEffect } from "react";
import { createRoot } from "react-dom/client";

const PAGE = 5;
const channel = location.hash.slice(1);

window.rendered = { list: [], pages: [] };
window.client = new ConvexReactClient(location.origin);

/** Shows a message before the server knows of it. */
function guess(store, { channel, author, body }) {
  const messages = store.getQuery(api.messages.list, { channel });
  if (messages === undefined) return;
  const message = { _id: `guess ${body}`, _creationTime: Date.now(), channel, author, body };
  store.setQuery(api.messages.list, { channel }, [...messages, message]);
}

function Chat() {
  const messages = useQuery(api.messages.list, { channel });
  const send = useMutation(api.messages.send).withOptimisticUpdate(guess);
  const sendPlainly = useMutation(api.messages.send);
  const remove = useMutation(api.messages.remove);
  const { results, status, loadMore } = usePaginatedQuery(
    api.messages.page,
    { channel },
    { initialNumItems: PAGE },
  );
  window.actions = { send, sendPlainly, remove, loadMore: () => loadMore(PAGE) };
  useEffect(() => {
    if (messages) window.rendered.list.push(messages.map(({ _id, body }) => ({ id: _id, body })));
  }, [messages]);
  useEffect(() => {
    window.rendered.pages.push({ status, bodies: results.map(({ body }) => body) });
  }, [results, status]);
  return (
    <main>
      <ul id="list">{messages?.map(({ _id, body }) => <li key={_id}>{body}</li>)}</ul>
      <p id="status">{status}</p>
      <ol id="pages">{results.map(({ _id, body }) => <li key={_id}>{body}</li>)}</ol>
    </main>
  );
}

createRoot(document.getElementById("root")).render(
  <ConvexProvider client={window.client}>
    <Chat />
  </ConvexProvider>,
);
