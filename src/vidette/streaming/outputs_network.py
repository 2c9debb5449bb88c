"""Events to other programs: HTTP POST and MQTT. Neither ever holds up the run; what was lost is counted."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from vidette.errors import SettingError
from vidette.streaming.base import Stoppable, safe_address
from vidette.streaming.clock import Clock, SystemClock
from vidette.streaming.courier import Courier
from vidette.streaming.outputs import as_json
from vidette.streaming.records import CountingOutput, Record, Score

__all__ = ["NETWORK_SCHEMES", "MqttTopic", "Webhook", "is_address", "open_network_output"]

Say = Callable[[str], None]

_CAPACITY = 1000
_GRACE_SECONDS = 5.0
_TIMEOUT_SECONDS = 10.0
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 1.0, 60.0
_TRANSIENT = (408, 425, 429)


def _say_nothing(text: str) -> None:
    del text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere would arrive there without its content."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Webhook(Stoppable):
    """Posts every event, signal and note as one JSON object, in order; see :func:`~.outputs.as_json`.

    What cannot be delivered now is tried again, after one second and then twice as long each time, up to a
    minute. A thousand records wait at most; then the oldest are lost. An answer of 3xx or 4xx (but 408, 425 and
    429) is final: the record is lost.

    Args:
        url: ``http://`` or ``https://``; a user and password in it are sent as basic authentication.
        clock: What tells the time between attempts.
        say: Told once when deliveries begin to fail, and when they work again.
        capacity: Records that wait at most.
        grace_seconds: How long closing waits for what is left.

    Attributes:
        name: The address as it may be shown.
        num_sent: Records that were delivered.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock | None = None,
        say: Say | None = None,
        capacity: int = _CAPACITY,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        super().__init__(clock or SystemClock())
        self.name, self.num_sent = safe_address(url), 0
        self._num_refused = 0
        self._url, self._headers = _plain_url(url)
        self._say, self._grace_seconds = say or _say_nothing, grace_seconds
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._is_failing = False
        self._courier = Courier[bytes](self._deliver, capacity=capacity, name="webhook")

    @property
    def num_lost(self) -> int:
        """Records that were not, and will not be, delivered."""
        return self._courier.num_lost + self._num_refused

    def take(self, record: Record) -> None:
        """Queue a record; scores are not sent."""
        if not isinstance(record, Score):
            self._courier.put(_payload(record), may_drop=True)

    def close(self) -> None:
        """Wait a little for what is left; the rest is lost."""
        if not self._courier.finish(timeout_seconds=self._grace_seconds):
            self.stop()
            self._courier.finish(timeout_seconds=1.0)

    def summary(self) -> str:
        """Say what was sent and what was lost."""
        return _summary(self.name, self.num_sent, self.num_lost)

    def _deliver(self, payload: bytes) -> None:
        """Try until it is delivered, refused for good, or the run is over."""
        wait_seconds = _FIRST_WAIT_SECONDS
        while True:
            reason, is_final = self._post(payload)
            if not reason:
                self.num_sent += 1
                if self._is_failing:
                    self._say(f"{self.name} takes events again")
                self._is_failing = False
                return
            if not self._is_failing:
                self._say(f"{self.name}: {reason}; {'this event is lost' if is_final else 'trying again'}")
            self._is_failing = True
            if not is_final:
                self.sleep_until(self.clock.now() + wait_seconds)
            if is_final or self.stopped.is_set():
                self._num_refused += 1
                return
            wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)

    def _post(self, payload: bytes) -> tuple[str, bool]:
        """Send once; return what went wrong, empty if nothing, and whether trying again is of no use."""
        request = urllib.request.Request(self._url, data=payload, headers=self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                answer.read(1)
            return "", False
        except urllib.error.HTTPError as error:
            error.close()
            is_final = error.code < 500 and error.code not in _TRANSIENT
            return f"answers {error.code} {error.reason}", is_final
        except urllib.error.URLError as error:
            return f"cannot be reached ({getattr(error.reason, 'strerror', None) or error.reason})", False
        except (OSError, http.client.HTTPException) as error:
            return f"breaks off ({getattr(error, 'strerror', None) or type(error).__name__})", False


class MqttTopic:
    """Publishes every event, signal and note as one JSON object on an MQTT topic, at least once (QoS 1).

    The connection is made, and made again, by paho-mqtt's own thread. A thousand records wait at most; then the
    newest are lost.

    Args:
        address: ``mqtt://user:password@host:1883/topic``, or ``mqtts://`` for TLS (port 8883).
        say: Told once when the connection fails, and when it is there again.
        capacity: Records that wait at most.
        grace_seconds: How long closing waits for what is left.

    Attributes:
        name: The address as it may be shown.
        num_sent: Records that the broker has confirmed.

    Raises:
        SettingError: paho-mqtt is not installed, or the address names no host or topic.
    """

    def __init__(
        self,
        address: str,
        *,
        say: Say | None = None,
        capacity: int = _CAPACITY,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        self.name, self.num_sent, self._num_taken, self._num_queued = safe_address(address), 0, 0, 0
        self._say, self._grace_seconds = say or _say_nothing, grace_seconds
        self._confirmed, self._is_failing = threading.Condition(), False
        parts = urlsplit(address)
        self._topic = unquote(parts.path.lstrip("/"))
        if not parts.hostname or not self._topic or set(address.rpartition("@")[2]) & set("+#?"):
            raise SettingError(
                f"{self.name}: expected mqtt://HOST/TOPIC, with a topic to publish on and none of +, #, ?"
            )
        self._client = self._new_client(parts, capacity)
        self._client.connect_async(parts.hostname, _port(parts, 8883 if parts.scheme == "mqtts" else 1883))
        self._client.loop_start()

    @property
    def num_lost(self) -> int:
        """Records that the broker has not confirmed."""
        return self._num_taken - self.num_sent

    def take(self, record: Record) -> None:
        """Queue a record; scores are not sent."""
        if isinstance(record, Score):
            return
        self._num_taken += 1
        sent = self._client.publish(self._topic, _payload(record), qos=1)
        # Without a connection it waits for one; without room it is lost.
        self._num_queued += sent.rc in (self._mqtt.MQTT_ERR_SUCCESS, self._mqtt.MQTT_ERR_NO_CONN)

    def close(self) -> None:
        """Wait a little for what is left; the rest is lost."""
        with self._confirmed:
            self._confirmed.wait_for(lambda: self.num_sent >= self._num_queued, timeout=self._grace_seconds)
        self._client.disconnect()
        self._client.loop_stop()

    def summary(self) -> str:
        """Say what was sent and what was lost."""
        return _summary(self.name, self.num_sent, self.num_lost)

    def _new_client(self, parts: SplitResult, capacity: int) -> Any:
        try:
            import paho.mqtt.client as mqtt
        except ImportError as error:
            raise SettingError(
                f"{self.name}: MQTT needs paho-mqtt; install it with: pip install 'vidette[mqtt]'"
            ) from error
        self._mqtt: Any = mqtt
        client: Any = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.max_queued_messages_set(capacity)
        client.reconnect_delay_set(min_delay=1, max_delay=int(_LONGEST_WAIT_SECONDS))
        if parts.username:
            client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            client.tls_set()
        client.on_publish = self._on_publish
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        return client

    # What paho-mqtt calls on its thread.

    def _on_publish(self, *_: Any) -> None:
        with self._confirmed:
            self.num_sent += 1
            self._confirmed.notify_all()

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        del client, data, flags, properties
        if reason.is_failure:
            self._fails(f"refuses the connection ({reason}); check user and password")
            return
        if self._is_failing:
            self._say(f"{self.name} takes events again")
        self._is_failing = False

    def _on_connect_fail(self, *_: Any) -> None:
        self._fails("cannot be reached")

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        del client, data, flags, properties
        if reason.is_failure:
            self._fails("the connection was lost")

    def _fails(self, reason: str) -> None:
        if not self._is_failing:
            self._say(f"{self.name}: {reason}; trying again")
        self._is_failing = True


NETWORK_SCHEMES: dict[str, Callable[..., CountingOutput]] = {
    "http": Webhook,
    "https": Webhook,
    "mqtt": MqttTopic,
    "mqtts": MqttTopic,
}
"""Where events can be sent, by the scheme of the address."""


def is_address(target: str) -> bool:
    """Tell an address from the path of a file.

    Example:
        >>> is_address("https://example.org/hook"), is_address("events.jsonl")
        (True, False)
    """
    return "://" in target


def open_network_output(address: str, *, say: Say | None = None) -> CountingOutput:
    """Return the output at an address.

    Args:
        address: Of a scheme in :data:`NETWORK_SCHEMES`.
        say: Told when deliveries begin to fail, and when they work again.

    Raises:
        SettingError: The scheme is unknown, the address incomplete, or an extra is not installed.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in NETWORK_SCHEMES:
        raise SettingError(f"{safe_address(address)}: expected a file, or {'://, '.join(NETWORK_SCHEMES)}://")
    return NETWORK_SCHEMES[scheme](address, say=say)


def _payload(record: Record) -> bytes:
    return json.dumps(as_json(record), ensure_ascii=False, allow_nan=False).encode()


def _plain_url(url: str) -> tuple[str, dict[str, str]]:
    """Return the address without user and password, and the headers to send."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise SettingError(f"{safe_address(url)}: {error}") from error
    if not parts.hostname:
        raise SettingError(f"{safe_address(url)}: names no host; expected https://HOST/PATH")
    headers = {"Content-Type": "application/json", "User-Agent": "vidette"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts._replace(netloc=host + port, fragment="").geturl(), headers


def _port(parts: SplitResult, default: int) -> int:
    try:
        return parts.port or default
    except ValueError as error:
        raise SettingError(f"{safe_address(parts.geturl())}: {error}") from error


def _summary(name: str, num_sent: int, num_lost: int) -> str:
    lost = f", {num_lost} lost" if num_lost else ""
    return f"{name}: {num_sent} sent{lost}"
