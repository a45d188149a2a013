// A line to a broker that breaks as real ones do, and notes what is asked over it.
import { connect, createServer } from 'node:net';

// `plan`: what becomes of the connections that carry a body, one after the other: { after: bytes, how: 'cut' | 'stall' }.
// Cut: both ends see it, the broker first, so that it has counted what arrived when the client asks for that. Stalled: the
// client is cut off, and the broker goes on waiting for it. Then the line is sound.
export async function line(host, port, plan) {
  const asked = [];
  const held = [];
  const server = createServer((client) => {
    const broker = connect(port, host);
    let sent = 0;
    let broken = null;
    let over = false;
    const end = () => { client.destroy(); if (broken?.how !== 'stall') broker.destroy(); };
    client.on('error', end).on('close', end);
    broker.on('error', () => client.destroy()).on('close', () => client.destroy());
    broker.on('data', (bytes) => {
      if (over) return;
      const status = /^HTTP\/1\.1 (\d{3})/.exec(bytes.toString('latin1'));
      if (status && asked.length) asked.at(-1).status = Number(status[1]);
      client.write(bytes);
    });
    client.on('data', (bytes) => {
      const head = /^([A-Z]+) (\S+) HTTP\/1\.1\r\n([^]*?)\r\n\r\n/.exec(bytes.toString('latin1'));
      if (head) {
        const offset = /^upload-offset: *(\d+)/im.exec(head[3]);
        asked.push({ method: head[1], path: head[2], offset: offset && Number(offset[1]) });
        sent = 0;
        if (head[1] === 'PATCH' && broken === null) broken = plan.shift() ?? false;
      }
      sent += bytes.length;
      if (over) return;
      if (broken && sent > broken.after) {
        over = true;
        if (broken.how === 'cut') return broker.end();
        held.push(broker);
        return end();
      }
      broker.write(bytes);
    });
  });
  await new Promise((ok) => server.listen(0, '127.0.0.1', ok));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    asked,
    close() { held.forEach((socket) => socket.destroy()); server.close(); },
  };
}
