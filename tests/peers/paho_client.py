"""Talks MQTT 5 and 3.1.1 to the broker on the port given, as Home Assistant's client library does."""

import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT = int(sys.argv[1])
DEADLINE = 20


class Client:
    def __init__(self, name, version, will=None):
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version)
        self.heard = []
        self.changed = threading.Condition()
        self.client.on_message = self.on_message
        self.client.on_connect = self.note("connected")
        self.client.on_subscribe = self.note("subscribed")
        if will:
            self.client.will_set(will, "gone", qos=1, retain=True)
        self.client.connect("127.0.0.1", PORT)
        self.client.loop_start()
        self.wait(lambda: "connected" in self.heard, "a connection")

    def note(self, what):
        def callback(*_):
            with self.changed:
                self.heard.append(what)
                self.changed.notify_all()

        return callback

    def on_message(self, _client, _userdata, message):
        with self.changed:
            self.heard.append((message.topic, message.payload.decode(), message.retain))
            self.changed.notify_all()

    def wait(self, is_so, what):
        with self.changed:
            if not self.changed.wait_for(is_so, DEADLINE):
                sys.exit(f"waited in vain for {what}: {self.heard}")

    def expect(self, *message):
        self.wait(lambda: message in self.heard, message)

    def subscribe(self, topic, **options):
        before = self.heard.count("subscribed")
        self.client.subscribe(topic, **options)
        self.wait(lambda: self.heard.count("subscribed") > before, "a SUBACK")

    def publish(self, topic, payload, **options):
        self.client.publish(topic, payload, qos=1, **options).wait_for_publish(DEADLINE)


for version, name in [(mqtt.MQTTv311, "v311"), (mqtt.MQTTv5, "v5")]:
    one = Client(f"{name}-one", version)
    one.publish(f"{name}/kept", "retained", retain=True)
    two = Client(f"{name}-two", version)
    two.subscribe(f"{name}/#", qos=1)
    two.expect(f"{name}/kept", "retained", True)
    one.publish(f"{name}/live", "hello")
    two.expect(f"{name}/live", "hello", False)
    for number in range(200):
        one.publish(f"{name}/many", str(number))
    two.expect(f"{name}/many", "199", False)
    order = [message[1] for message in two.heard if message[0] == f"{name}/many"]
    assert order == [str(number) for number in range(200)], order
    mortal = Client(f"{name}-mortal", version, will=f"{name}/will")
    mortal.client._sock.close()
    two.expect(f"{name}/will", "gone", False)
    polite = Client(f"{name}-polite", version, will=f"{name}/polite")
    polite.client.disconnect()
    late = Client(f"{name}-late", version)
    late.subscribe(f"{name}/+", qos=0)
    late.expect(f"{name}/will", "gone", True)
    # The end, as heard by those who were there all along and by the latecomer.
    one.publish(f"{name}/end", "")
    for witness in [two, late]:
        witness.expect(f"{name}/end", "", False)
        wills = [message[0] for message in witness.heard if message[1] == "gone"]
        assert wills == [f"{name}/will"], "the will of one who said goodbye is not spoken"

# What only version 5 can say.
five = Client("five", mqtt.MQTTv5)
five.subscribe("v311/kept", options=SubscribeOptions(qos=1, retainHandling=2))
expiry = Properties(PacketTypes.PUBLISH)
expiry.MessageExpiryInterval = 60
five.publish("v311/kept", "new", retain=True, properties=expiry)
five.expect("v311/kept", "new", False)
assert ("v311/kept", "retained", True) not in five.heard, "retain handling 2 asks for no retained messages"
mute = Client("mute", mqtt.MQTTv5)
mute.subscribe("echo", options=SubscribeOptions(qos=1, noLocal=True))
mute.publish("echo", "mine")
five.publish("echo", "yours")
mute.expect("echo", "yours", False)
assert ("echo", "mine", False) not in mute.heard, "no local"
keen = Client("keen", mqtt.MQTTv5)
keen.subscribe("flags", options=SubscribeOptions(qos=1, retainAsPublished=True))
five.publish("flags", "retained", retain=True)
keen.expect("flags", "retained", True)
print("all of it")
