"""Events to other programs: tried again, counted when lost, never in the way, no password shown."""

import json
import socket
import struct
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from vidette.errors import SettingError
from vidette.prediction.decision import Event, Window
from vidette.streaming.clock import ManualClock
from vidette.streaming.drift import Signal
from vidette.streaming.outputs_network import MqttTopic, Webhook, open_network_output
from vidette.streaming.records import Decided, Drifted, Note, Score, Status

CLASSES = ("idle", "wave")
STATUS = Status(8.0, 8.0, 0.01, 0.01, 0, 12, 0, 0, 0)
FOUND = np.array([0.2, 0.8])
SCORE = Score("cam", Window(0.0, 1.0, FOUND), CLASSES, FOUND, np.log(FOUND), 0, STATUS)
DRIFT = Drifted("cam", Signal("frozen", 3.0, None, "nothing in the picture changes"))


def event(number):
    return Decided("cam", Event(float(number), number + 1.0, "wave", 0.9))


@contextmanager
def hook(codes=(), *, gate=None):
    """A web server that answers the given codes in turn, then 200; each answer may wait for a gate."""
    got, codes = [], list(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if gate is not None:
                gate.wait(20)
            got.append((json.loads(body), self.headers.get("Authorization"), self.path))
            code = codes.pop(0) if codes else 200
            self.send_response(code)
            if code == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", got
    finally:
        if gate is not None:
            gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_events_signals_and_notes_are_posted_in_order_and_scores_are_not():
    with hook() as (place, got):
        out = Webhook(f"http://me:p%40ss@{place}/deep?a=1", clock=ManualClock())
        for record in (SCORE, event(1), DRIFT, Note("cam", "lost", 4.0, "cam: gone")):
            out.take(record)
        out.close()
    assert [each["type"] for each, _, _ in got] == ["event", "signal", "note"]
    assert got[0][0]["label"] == "wave"
    assert got[1][0]["kind"] == "frozen"
    assert got[0][1:] == ("Basic bWU6cEBzcw==", "/deep?a=1")
    assert out.summary() == f"http://me:***@{place}/deep?a=1: 3 sent"


def test_what_fails_is_tried_again_with_longer_waits():
    clock, said = ManualClock(), []
    with hook([503, 429, 500]) as (place, got):
        out = Webhook(f"http://{place}/", clock=clock, say=said.append)
        out.take(event(1))
        out.take(event(2))
        out.close()
    assert [each["start_seconds"] for each, _, _ in got] == [1, 1, 1, 1, 2], "in order"
    assert clock.now() == pytest.approx(1 + 2 + 4)
    assert (out.num_sent, out.num_lost) == (2, 0)
    assert len(said) == 2
    assert "503" in said[0]
    assert "again" in said[1]


@pytest.mark.parametrize("code", [404, 302])
def test_what_is_refused_is_lost_and_counted(code):
    said = []
    with hook([code]) as (place, got):
        out = Webhook(f"http://u:secret@{place}/", clock=ManualClock(), say=said.append)
        out.take(event(1))
        out.take(event(2))
        out.close()
    assert len(got) == 2
    assert (out.num_sent, out.num_lost) == (1, 1)
    assert out.summary().endswith("1 sent, 1 lost")
    assert str(code) in said[0]
    assert "secret" not in "".join(said) + out.summary() + out.name


def test_a_webhook_that_hangs_does_not_hold_up_the_run():
    gate = threading.Event()
    with hook(gate=gate) as (place, got):
        out = Webhook(f"http://{place}/", clock=ManualClock(), capacity=2, grace_seconds=20.0)
        for number in range(6):
            out.take(event(number))  # returns at once: the server answers none of them yet
        gate.set()
        out.close()
    assert out.num_sent == len(got)
    assert 2 <= out.num_sent <= 3, "two that waited, and the one on its way if it had left"
    assert out.num_sent + out.num_lost == 6
    assert got[-1][0]["start_seconds"] == 5, "the oldest are lost"


def test_an_unreachable_webhook_ends_soon_and_counts():
    said = []
    out = Webhook(f"http://127.0.0.1:{free_port()}/", clock=ManualClock(), say=said.append, grace_seconds=0.0)
    out.take(event(1))
    out.take(event(2))
    out.close()
    assert (out.num_sent, out.num_lost) == (0, 2)


class Broker(threading.Thread):
    """As much of an MQTT 3.1.1 broker as one client needs: connections, publications at QoS 1, pings."""

    def __init__(self, *, refuse=0, port=0):
        super().__init__(daemon=True)
        self.refuse, self.got, self.login = refuse, [], None
        self.server = socket.create_server(("127.0.0.1", port))
        self.port = self.server.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                self.serve(connection, stream)

    def serve(self, connection, stream):
        while head := stream.read(1):
            kind, length, shift = head[0] >> 4, 0, 0
            while True:
                (byte,) = stream.read(1)
                length |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    break
            body = stream.read(length)
            if kind == 1:
                size = struct.unpack_from(">H", body, 10)[0]
                self.login = body[12 + size :]
                connection.sendall(bytes([0x20, 2, 0, self.refuse]))
            elif kind == 3:
                size = struct.unpack_from(">H", body)[0]
                self.got.append((body[2 : 2 + size].decode(), json.loads(body[4 + size :])))
                connection.sendall(bytes([0x40, 2]) + body[2 + size : 4 + size])
            elif kind == 12:
                connection.sendall(bytes([0xD0, 0]))
            elif kind == 14:
                return

    def stop(self):
        self.server.close()


def test_mqtt_gets_events_with_user_and_password():
    broker = Broker()
    out = MqttTopic(f"mqtt://me:p%40ss@127.0.0.1:{broker.port}/site/door", grace_seconds=20.0)
    for record in (SCORE, event(1), DRIFT, event(2)):
        out.take(record)
    out.close()
    broker.stop()
    assert [topic for topic, _ in broker.got] == ["site/door"] * 3
    assert [each["type"] for _, each in broker.got] == ["event", "signal", "event"]
    assert broker.login == b"\0\2me\0\4p@ss"
    assert out.summary() == f"mqtt://me:***@127.0.0.1:{broker.port}/site/door: 3 sent"


def test_mqtt_says_that_it_cannot_connect_and_counts_what_is_lost():
    said, told = [], threading.Event()

    def say(text):
        said.append(text)
        told.set()

    broker = Broker(refuse=5)
    for port, reason in ((free_port(), "cannot be reached"), (broker.port, "refuses the connection")):
        said.clear()
        told.clear()
        out = MqttTopic(f"mqtt://me:secret@127.0.0.1:{port}/a", say=say, grace_seconds=0.0, capacity=2)
        for number in range(4):
            out.take(event(number))
        assert told.wait(20)
        out.close()
        assert (out.num_sent, out.num_lost) == (0, 4)
        assert reason in said[0]
        assert "secret" not in "".join(said) + out.summary()
    broker.stop()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/a", "expected a file, or http://"),
        ("mqtt://host", "with a topic"),
        ("mqtt://host/a/#", "with a topic"),
        ("mqtt:///a", "with a topic"),
        ("mqtt://u:secret@host:99999/a", "Port out of range"),
        ("https:///hook", "names no host"),
        ("https://u:secret@host:99999/hook", "Port out of range"),
    ],
)
def test_addresses_that_cannot_be(address, message):
    with pytest.raises(SettingError, match=message) as caught:
        open_network_output(address)
    assert "secret" not in str(caught.value)


def test_mqtt_without_its_extra_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(SettingError, match=r"pip install 'vidette\[mqtt\]'"):
        open_network_output("mqtt://host/a")
