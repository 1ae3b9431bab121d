// Asks the server: what libraries there are, and changes of their files.

import { api } from "../../../scripts/api.js";

// An answer that is no success: its status, and the server's own words.
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function answerOf(request) {
  const answer = await request;
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(answer.status, content.error ?? `${answer.status} ${answer.statusText}`);
  return content;
}

export function fetchLibraries() {
  return answerOf(api.fetchApi("/adiff/library", { cache: "no-store" }));
}

// what: edit, remove or undo.
export function change(what, content) {
  return answerOf(
    api.fetchApi(`/adiff/library/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(content),
    }),
  );
}

// Of a defect's picture; state: of its library, so that another picture has another address. size: pixels.
export function pictureUrl(defect, state, size) {
  const query = new URLSearchParams({ defect: defect.label, size, state });
  return api.apiURL(`/adiff/preview?${query}`);
}
