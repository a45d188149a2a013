// The public API, as this page uses it. The key lives in this tab only and goes into a header, never into an address.

const KEY = "mpegflow-key";
let key = null;

/** Takes the key from the address (and out of it), or from this tab's storage. */
export function loadKey() {
  const fragment = new URLSearchParams(location.hash.slice(1)).get("key");
  if (fragment) {
    setKey(fragment);
    // Out of the address bar and the history, before anybody copies it along with the link.
    history.replaceState(null, "", location.pathname);
  } else {
    key = sessionStorage.getItem(KEY);
  }
  return key !== null;
}

export function setKey(value) {
  key = value;
  if (value === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, value);
}

export const authorization = () => `Bearer ${key}`;

/** A refusal by the broker (problem+json), or no answer at all. */
export class Refused extends Error {
  constructor(status, problem) {
    const field = problem?.field ? ` (field ${problem.field})` : "";
    super([problem?.title || `status ${status}`, problem?.detail].filter(Boolean).join(": ") + field);
    this.status = status;
  }
}

export async function call(path, { method = "GET", body, headers = {}, signal } = {}) {
  const all = { authorization: authorization(), ...headers };
  if (body !== undefined) all["content-type"] = "application/json";
  if (method === "POST") all["idempotency-key"] = crypto.randomUUID();
  const response = await fetch(path, { method, headers: all, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  if (!response.ok) throw new Refused(response.status, await response.json().catch(() => null));
  return response;
}

export const json = async (path, options) => (await call(path, options)).json();

/** Follows the event stream for ever; reconnects, with the last id, and tells `onLink` whether it stands. */
export async function follow(onEvent, onLink, signal) {
  let last = null;
  let wait = 500;
  while (!signal.aborted) {
    try {
      const headers = { accept: "text/event-stream", ...(last ? { "last-event-id": last } : {}) };
      const response = await call("/v1/events", { headers, signal });
      onLink(true);
      wait = 500;
      let buffer = "";
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        buffer += value.replaceAll("\r\n", "\n");
        let end;
        while ((end = buffer.indexOf("\n\n")) >= 0) {
          const block = buffer.slice(0, end);
          buffer = buffer.slice(end + 2);
          let data = "";
          for (const line of block.split("\n")) {
            if (line.startsWith("data:")) data += line.slice(5).trimStart();
            else if (line.startsWith("id:")) last = line.slice(3).trim();
          }
          if (data) onEvent(JSON.parse(data));
        }
        if (buffer.length > 1 << 20) throw new Error("the event stream makes no sense");
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) throw error;
    }
    onLink(false);
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, 10_000);
  }
}

/** Sends a file, from where the broker has got to; a broken connection is taken up again. */
export async function upload(file, name, onProgress) {
  let state = await json("/v1/uploads", { method: "POST", body: { size: file.size, name: name || undefined } });
  let failures = 0;
  while (state.offset < state.size) {
    const before = state.offset;
    try {
      state = await send(state, file, onProgress);
    } catch (error) {
      if (error instanceof Refused && error.status >= 400 && error.status < 500 && error.status !== 409) throw error;
      if (failures >= 6) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** failures));
      state = await json(`/v1/uploads/${state.id}`).catch(() => state);
    }
    failures = state.offset > before ? 0 : failures + 1;
    if (failures > 6) throw new Error("the upload does not get any further");
  }
  return state.id;
}

// fetch() says nothing of how much of a body it has sent; XMLHttpRequest does.
function send(state, file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PATCH", `/v1/uploads/${state.id}`);
    request.setRequestHeader("authorization", authorization());
    request.setRequestHeader("upload-offset", String(state.offset));
    request.setRequestHeader("content-type", "application/offset+octet-stream");
    request.responseType = "json";
    request.upload.onprogress = (event) => onProgress(state.offset + event.loaded);
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) resolve(request.response);
      else reject(new Refused(request.status, request.response));
    };
    request.onerror = () => reject(new Error("the connection broke"));
    request.send(file.slice(state.offset));
  });
}
