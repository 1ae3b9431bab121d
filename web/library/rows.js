// The list's rows: a library's heading, or a defect with its picture and what can be done with it.

import { KIND, addLoader } from "./canvas.js";
import { element, icon, iconButton } from "./element.js";
import { pictureUrl } from "./server.js";
import { say } from "./words.js";

const THUMBNAIL = 112; // pixels asked for
const UNHURRIED = 60; // milliseconds that a row is in view before its picture is asked for

// Why a library cannot be changed.
export const lockOf = ({ locked }) => ({ pack: say("lockedPack"), link: say("lockedLink"), file: say("lockedFile") })[locked];

export const nameOf = (defect) => `${defect.product}/${defect.defect}`;

// Whether two items look the same, so that the row of one does for the other.
export function alike(one, other) {
  const looks = ({ library, defect, found, open, damaged }) => JSON.stringify([library?.locked, defect, found, open, damaged]);
  return looks(one) === looks(other);
}

// Draws an item: { key, library, defect }, { library, found, open } or { damaged }.
export function drawRow(panel, item) {
  return item.defect ? row(panel, item) : head(panel, item);
}

// Shows on a row whether it is chosen or picked.
export function markRow({ chosen, several }, shown) {
  const picked = several.keys.has(shown.dataset.key);
  shown.classList.toggle("adiff-chosen", shown.dataset.key === chosen);
  shown.classList.toggle("adiff-picked", picked);
  const box = shown.querySelector(".adiff-pick");
  if (box) box.checked = picked;
}

function head(panel, { library, found, open, damaged }) {
  if (damaged) {
    const told = say("damaged", damaged);
    return element("div", { class: "adiff-head adiff-damaged", title: told }, icon("exclamation-triangle"), element("span", {}, told));
  }
  const title = library.locked ? lockOf(library) : library.name;
  return element(
    "button",
    { type: "button", class: "adiff-head", onclick: () => panel.toggle(library.name), title, "aria-expanded": String(open) },
    icon(open ? "chevron-down" : "chevron-right"),
    element("span", {}, library.name.replace(/\.safetensors$/, "")),
    library.locked && icon("lock"), element("small", {}, String(found)),
  );
}

function row(panel, { library, defect, key }) {
  const { several } = panel;
  const frame = element("div", { class: "adiff-thumb" }, icon("image"));
  if (defect.picture) setTimeout(() => thumbnail(frame, library, defect), UNHURRIED);
  const shots = defect.shots === 1 ? say("shot") : say("shots", { n: defect.shots });
  const act = (work) => (event) => {
    event.stopPropagation();
    if (!panel.busy) work();
  };
  const tags = defect.tags.slice(0, 3);
  const made = element(
    "div",
    {
      class: "adiff-row", role: "listitem", tabIndex: 0, draggable: true,
      title: `${nameOf(defect)}${defect.notes.notes ? `\n${defect.notes.notes}` : ""}`,
      onclick: (event) => several.takes(event, key) || panel.choose(key),
      ondragstart: (event) => {
        event.dataTransfer.setData(KIND, defect.label);
        event.dataTransfer.effectAllowed = "copy";
        event.dataTransfer.setDragImage(frame, 28, 28);
      },
      onkeydown: (event) => {
        if (event.target !== made || several.takes(event, key) || event.key !== "Enter") return;
        event.preventDefault(); // it would go to the form too, and save it
        panel.enter(key);
      },
    },
    frame, !library.locked && several.box(key, nameOf(defect)),
    element(
      "div", { class: "adiff-what" },
      element("div", { class: "adiff-name" }, element("span", {}, `${defect.product} / `), element("b", {}, defect.defect)),
      element("div", { class: "adiff-facts" }, [shots, defect.notes.licence ?? say("noLicence")].join(" · ")),
      element(
        "div", { class: "adiff-words" }, tags.map((tag) => element("span", { class: "adiff-tag" }, tag)),
        defect.tags.length > tags.length && element("span", { class: "adiff-tag" }, `+${defect.tags.length - tags.length}`),
      ),
    ),
    element(
      "div", { class: "adiff-actions" },
      iconButton("plus", say("add"), act(() => addLoader(defect.label))),
      !library.locked && iconButton("trash", say("remove"), act(() => panel.remove(library, defect)), { class: "adiff-danger" }),
    ),
  );
  made.dataset.key = key;
  markRow(panel, made);
  return made;
}

function thumbnail(frame, library, defect) {
  if (!frame.isConnected) return; // scrolled past
  const picture = element("img", { alt: "", draggable: false, decoding: "async" });
  picture.onload = () => frame.replaceChildren(picture);
  picture.src = pictureUrl(defect, library.state, THUMBNAIL);
}
