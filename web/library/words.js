// What the panel says. Other languages are in locales/<language>/main.json under adiffPanel, by the same keys.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const ENGLISH = {
  title: "Defects",
  heading: "Defect libraries",
  hint: "Learned defects: search, add to the graph, rename, tag",
  search: "Search name, tag, licence…",
  refresh: "Read the libraries again",
  undo: "Take back the last change",
  undoShort: "Undo",
  nothingToUndo: "Nothing to take back",
  all: "All libraries",
  library: "Library",
  add: "Add to graph",
  remove: "Delete",
  save: "Save",
  close: "Close",
  count: "{n} defects",
  some: "{n} of {all}",
  shots: "{n} shots",
  shot: "1 shot",
  noLicence: "no licence",
  appearanceAndMasks: "appearance and masks",
  appearance: "appearance only",
  masks: "masks only",
  product: "Product",
  defect: "Defect",
  tags: "Tags",
  addTag: "add a tag…",
  removeTag: "Remove tag {tag}",
  licence: "Licence",
  author: "Author",
  notes: "Notes",
  base: "learned on {base}",
  lockedPack: "Cannot be changed: it comes with the pack; save a copy with Save Library",
  lockedLink: "Cannot be changed: it is a link to a file outside the model folders; edit it there",
  lockedFile: "Cannot be changed: the file or its folder is read-only",
  pick: "Select {name}",
  picked: "{n} selected",
  unpick: "Clear the selection",
  most: "{n} at a time, so that all can be taken back",
  tagsOfAll: "Tags of all of them",
  saved: "{name} saved",
  removed: "{name} deleted",
  restored: "{name} is as it was",
  severalSaved: "{n} defects saved",
  severalRemoved: "{n} defects deleted",
  severalRestored: "{n} defects are as they were",
  conflict: "The file has changed in the meantime. The list is new now; look and save again.",
  damaged: "{name} cannot be read: {why}",
  none: "No defects yet",
  noneHint: "Train one with the template “Train a defect from photos”, or put a library into models/adiff_libraries.",
  noMatch: "No defect matches",
  noMatchHint: "Try fewer words or another tag.",
  failed: "The server does not answer: {why}",
  picture: "picture",
  loading: "Reading the libraries…",
};

let words = ENGLISH;

// Reads the words of the front end's language; to be awaited before anything is shown.
export async function loadWords() {
  const language = app.extensionManager.setting.get("Comfy.Locale") ?? "en";
  if (language === "en") return;
  try {
    const all = await (await api.fetchApi("/i18n")).json();
    words = { ...ENGLISH, ...all[language]?.adiffPanel };
  } catch {
    words = ENGLISH; // an older server has no translations
  }
}

export function say(key, values = {}) {
  return words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
