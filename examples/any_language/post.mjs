// Posts a task and waits for its outcome, with nothing but a NATS client:
//   npm install && node post.mjs
// Needs `callboard up --agents ../hello/hello_agents.py`; NATS_URL says where, if not here.
import { connect } from "@nats-io/transport-node";

const servers = process.env.NATS_URL ?? "nats://127.0.0.1:4222";
const connection = await connect({ servers });

// Listen before posting. A shard (0-255) is a poster's own corner: it is told what was stored.
const shard = Math.floor(Math.random() * 256);
const told = connection.subscribe(`cb.told.acme.${shard}`);

// A reply subject makes JetStream acknowledge the post: `seq` is the task's id.
const body = JSON.stringify({ payload: { name: "Node.js" }, key: `node-${process.pid}`, shard });
const stored = (await connection.request("cb.task.acme.hello", body, { timeout: 5000 })).json();
if (stored.error) throw new Error(stored.error.description);
const task = String(stored.seq);
console.log(`task ${task} is stored`);

for await (const message of told) {
  const event = message.json();
  if (event.task !== task || event.kind === "lost") continue; // another's; or it runs again
  if (event.kind === "outcome" && event.error) continue; // the router settles it next
  console.log(event.kind === "outcome" ? event.result : event);
  break;
}
await connection.close();
