"""Convex' Python client, unmodified, against a Convoke server that serves the demo.

    python main.py http://127.0.0.1:3210
"""

import sys
import threading
import time

from convex import ConvexClient, ConvexError, ConvexInt64

WAIT_SECONDS_MAX = 20


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: main.py URL")
    # The client's calls block for ever where no answer comes.
    watch = threading.Timer(6 * WAIT_SECONDS_MAX, give_up)
    watch.daemon = True
    watch.start()
    client, other = ConvexClient(sys.argv[1]), ConvexClient(sys.argv[1])
    channel = f"python-{time.time_ns()}"
    for test in (calls, subscription, errors, integers):
        test(client, other, channel)
        print(f"ok: {test.__name__}", flush=True)


def give_up():
    import os

    print("error: no answer", file=sys.stderr, flush=True)
    os._exit(1)


def send(client, channel, body):
    return client.mutation("messages:send", {"channel": channel, "author": "python", "body": body})


def bodies(messages):
    return [message["body"] for message in messages]


def calls(client, _other, channel):
    equal(client.query("messages:list", {"channel": channel}), [])
    identifier = send(client, channel, "one")
    assert isinstance(identifier, str), identifier
    equal(bodies(client.query("messages:list", {"channel": channel})), ["one"])


def subscription(client, other, channel):
    updates = client.subscribe("messages:list", {"channel": channel})
    shows(updates, ["one"])
    send(client, channel, "two")
    shows(updates, ["one", "two"])
    send(other, channel, "three")
    shows(updates, ["one", "two", "three"])
    updates.unsubscribe()


def shows(updates, expected):
    for messages in updates:
        found = bodies(messages)
        if found == expected:
            return
        equal(found, expected[: len(found)])
    raise AssertionError(f"the subscription ended before {expected}")


def errors(client, _other, channel):
    try:
        send(client, channel, "")
        raise AssertionError("an empty body was taken")
    except ConvexError as error:
        equal(error.data["code"], "EMPTY_BODY")
        assert "a message needs a body" in str(error), error
    try:
        client.query("messages:nothing", {})
        raise AssertionError("there is no such function")
    except ConvexError:
        raise
    except Exception as error:
        assert "Could not find public function" in str(error), error
    # A failure ends nothing but itself.
    send(client, channel, "four")


def integers(client, _other, _channel):
    """A number beyond 2^53 travels exactly; one below is a float, as every number of JavaScript."""
    client.mutation("accounts:seed", {"accounts": 2, "balance": 100})
    amount = 2**60 + 1
    try:
        client.mutation("accounts:transfer", {"from": 0, "to": 1, "amount": ConvexInt64(amount)})
        raise AssertionError("nobody has that much")
    except ConvexError as error:
        found = error.data["data"]["amount"]
        assert isinstance(found, ConvexInt64) and found.value == amount, error.data
        equal(error.data["data"]["balance"], 100.0)


def equal(found, expected):
    assert found == expected, f"{found} is not {expected}"


if __name__ == "__main__":
    main()
