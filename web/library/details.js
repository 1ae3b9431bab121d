// The form below the list: all that a library says of one defect, to be changed.

import { element, icon, iconButton } from "./element.js";
import { lockOf } from "./rows.js";
import { pictureUrl } from "./server.js";
import { say } from "./words.js";

const PICTURE = 192; // pixels asked for
const LICENCES = ["CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "proprietary"];
const MOST = { name: 64, tag: 40, note: 4000 }; // characters

let lists = 0; // of suggestions, each with an id of its own

function suggestions(values) {
  lists += 1;
  return element("datalist", { id: `adiff-list-${lists}` }, [...new Set(values)].map((value) => element("option", { value })));
}

function field(label, input, more = {}) {
  return element("label", { class: `adiff-field ${more.class ?? ""}` }, element("span", {}, label), input);
}

// Tags as chips that end in an input; get() gives them.
export function tagInput(tags, known, locked) {
  const kept = [...tags];
  const list = suggestions(known);
  const input = element("input", { type: "text", placeholder: say("addTag"), maxLength: MOST.tag, list: list.id, disabled: locked });
  const box = element("div", { class: "adiff-tags-input" });

  function draw() {
    const chips = kept.map((tag) => element(
      "span", { class: "adiff-chip" }, element("span", {}, tag),
      !locked && iconButton("times", say("removeTag", { tag }), () => {
        kept.splice(kept.indexOf(tag), 1);
        draw();
        input.focus();
      }),
    ));
    box.replaceChildren(...chips, input, list);
  }

  function take() {
    for (const word of input.value.split(",").map((one) => one.trim()).filter(Boolean)) {
      if (!kept.some((tag) => tag.toLowerCase() === word.toLowerCase())) kept.push(word);
    }
    input.value = "";
    draw();
  }

  input.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === ",") && input.value.trim()) {
      event.preventDefault();
      event.stopPropagation();
      take();
      input.focus();
    } else if (event.key === "Backspace" && !input.value && kept.length) {
      kept.pop();
      draw();
      input.focus();
    }
  });
  draw();
  return { box, get: () => { take(); return kept; } };
}

function facts(library, defect) {
  const { anomaly, mask } = defect.learned;
  const shots = defect.shots === 1 ? say("shot") : say("shots", { n: defect.shots });
  const learned = say(anomaly && mask ? "appearanceAndMasks" : anomaly ? "appearance" : "masks");
  const lines = [library.name, say("base", { base: library.base }), `${shots} · ${learned}`];
  return lines.map((line) => element("p", { title: line }, line));
}

// A form for a defect. known: { tags, licences } of all defects. save(changes), remove(), add(), close() are called.
export function details({ library, defect, known, save, remove, add, close }) {
  const locked = Boolean(library.locked);
  const text = (value, most, more = {}) => element("input", { type: "text", value, maxLength: most, disabled: locked, ...more });
  const product = text(defect.product, MOST.name);
  const name = text(defect.defect, MOST.name);
  const licenceList = suggestions([...known.licences, ...LICENCES]);
  const licence = text(defect.notes.licence ?? "", MOST.note, { list: licenceList.id });
  const author = text(defect.notes.author ?? "", MOST.note);
  const notes = element("textarea", { value: defect.notes.notes ?? "", maxLength: MOST.note, rows: 2, disabled: locked });
  const tags = tagInput(defect.tags, known.tags, locked);
  const error = element("p", { class: "adiff-error", role: "alert", hidden: true });
  let saving = false;

  // What differs from what the library says; null if nothing does.
  function changes() {
    const given = { author: author.value.trim(), licence: licence.value.trim(), notes: notes.value.trim() };
    const changed = Object.entries(given).filter(([key, value]) => value !== (defect.notes[key] ?? ""));
    const renamed = `${product.value.trim()}/${name.value.trim()}`;
    const content = {};
    if (changed.length) content.notes = Object.fromEntries(changed);
    if (renamed !== `${defect.product}/${defect.defect}`) content.name = renamed;
    if (tags.get().join() !== defect.tags.join()) content.tags = tags.get();
    return Object.keys(content).length ? content : null;
  }

  async function submit(event) {
    event.preventDefault();
    if (saving) return;
    error.hidden = true;
    const wanted = changes();
    if (!wanted) {
      close();
      return;
    }
    saving = true;
    try {
      await save(wanted);
    } catch (refusal) {
      error.textContent = refusal.message;
      error.hidden = false;
    }
    saving = false;
  }

  const picture = defect.picture
    ? element("img", { src: pictureUrl(defect, library.state, PICTURE), alt: "", draggable: false })
    : icon("image");
  const buttons = [
    element("button", { type: "button", class: "adiff-button", onclick: add }, icon("plus"), say("add")),
    element("span", { class: "adiff-space" }),
    !locked && iconButton("trash", say("remove"), remove, { class: "adiff-danger" }),
    !locked && element("button", { type: "submit", class: "adiff-button adiff-primary" }, say("save")),
  ];
  const form = element(
    "form", { class: "adiff-details", onsubmit: submit, autocomplete: "off" },
    element(
      "header", {},
      element("div", { class: "adiff-picture" }, picture),
      element(
        "div", { class: "adiff-about" },
        element("h3", {}, element("span", {}, `${defect.product} / `), defect.defect),
        facts(library, defect),
      ),
      iconButton("times", say("close"), close),
    ),
    locked && element("p", { class: "adiff-locked" }, icon("lock"), lockOf(library)),
    element(
      "div", { class: "adiff-fields" },
      field(say("product"), product),
      field(say("defect"), name),
      element("div", { class: "adiff-field adiff-wide" }, element("span", {}, say("tags")), tags.box),
      field(say("licence"), licence),
      field(say("author"), author),
      field(say("notes"), notes, { class: "adiff-wide" }),
      licenceList,
    ),
    element("footer", {}, error, buttons),
  );
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  return form;
}
