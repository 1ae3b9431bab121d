// The library panel in the sidebar: every learned defect with its picture, to search, to drag onto the canvas, to change.

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { addLoader, offer, renameInGraph, takeDrops } from "./canvas.js";
import { details } from "./details.js";
import { element, icon, iconButton } from "./element.js";
import { VirtualList } from "./list.js";
import { alike, drawRow, markRow, nameOf } from "./rows.js";
import { Refusal, change, fetchLibraries } from "./server.js";
import { Several } from "./several.js";
import { loadWords, say } from "./words.js";

const HEAD = 34; // pixels of a library's heading
const ROW = 72; // and of a defect
const TAGS = 24; // tags offered
const LONG = 8000; // milliseconds that a message stays

const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const keyOf = (library, defect) => `${library.name}\n${nameOf(defect)}`;

class Panel {
  constructor() {
    this.libraries = [];
    this.damaged = [];
    this.filter = { text: "", library: "", tag: "" };
    this.closed = new Set(); // libraries whose defects are not shown
    this.steps = []; // lists of changes to take back together, the latest last
    this.chosen = null; // key of the defect in the form
    this.known = { tags: [], licences: [], often: [] }; // of all defects
    this.several = new Several(this);
    this.build();
  }

  build() {
    this.search = element("input", {
      type: "search", class: "adiff-search", placeholder: say("search"), "aria-label": say("search"), spellcheck: false,
      oninput: () => this.filterBy({ text: this.search.value }),
    });
    this.choice = element("select", {
      "aria-label": say("library"), onchange: () => this.filterBy({ library: this.choice.value }),
    });
    this.tags = element("div", { class: "adiff-tags" });
    this.count = element("span", { class: "adiff-count", role: "status" });
    this.back = iconButton("undo", say("nothingToUndo"), () => this.undo(), { disabled: true });
    this.frame = element("div", { class: "adiff-frame", role: "list", onkeydown: (event) => this.move(event) });
    this.empty = element("div", { class: "adiff-empty" });
    this.form = element("div", { class: "adiff-form" });
    this.message = element("div", { class: "adiff-message", role: "status", hidden: true });
    this.root = element(
      "div", { class: "adiff-library" },
      element(
        "div", { class: "adiff-bar" }, element("h2", {}, say("heading")), this.back,
        iconButton("refresh", say("refresh"), () => this.refresh()),
      ),
      element("div", { class: "adiff-searchbar" }, icon("search"), this.search),
      element("div", { class: "adiff-narrow" }, this.choice, this.count),
      this.tags, this.empty, this.frame, this.message, this.form,
    );
    this.list = new VirtualList(this.frame, (item) => drawRow(this, item), alike);
  }

  get busy() {
    return this.root.classList.contains("adiff-busy");
  }

  async refresh() {
    if (!this.libraries.length) this.tellEmpty(say("loading"), "", "spin pi-spinner");
    try {
      const { libraries, damaged } = await fetchLibraries();
      this.damaged = damaged;
      this.libraries = libraries.map((library) => this.sorted(library));
      this.takeStock();
    } catch (error) {
      this.tell(say("failed", { why: error.message }), { bad: true });
    }
    this.draw();
  }

  sorted(library) {
    library.defects.sort((one, other) => order.compare(one.product, other.product) || order.compare(one.defect, other.defect));
    for (const defect of library.defects) {
      const { notes } = defect;
      const texts = [nameOf(defect), ...defect.tags, notes.licence, notes.author, notes.notes, library.name];
      defect.text = texts.filter(Boolean).join("\n").toLowerCase();
    }
    return library;
  }

  filterBy(wanted) {
    Object.assign(this.filter, wanted);
    this.frame.scrollTop = 0;
    this.draw();
  }

  matches(library, defect, words) {
    const { tag } = this.filter;
    return (!tag || defect.tags.includes(tag)) && words.every((word) => defect.text.includes(word));
  }

  draw() {
    const words = this.filter.text.toLowerCase().split(/\s+/).filter(Boolean);
    const narrowed = words.length > 0 || this.filter.tag !== "";
    const items = [];
    let [all, shown] = [0, 0];
    for (const library of this.libraries) {
      all += library.defects.length;
      if (this.filter.library && this.filter.library !== library.name) continue;
      const found = narrowed ? library.defects.filter((defect) => this.matches(library, defect, words)) : library.defects;
      shown += found.length;
      if (!found.length && narrowed) continue;
      const open = !this.closed.has(library.name);
      items.push({ height: HEAD, key: library.name, library, found: found.length, open });
      if (!open && !narrowed) continue;
      for (const defect of found) items.push({ height: ROW, key: keyOf(library, defect), library, defect });
    }
    for (const damaged of narrowed || this.filter.library ? [] : this.damaged) items.push({ height: HEAD, key: damaged.name, damaged });
    this.count.textContent = shown === all ? say("count", { n: all }) : say("some", { n: shown, all });
    this.drawChoices();
    this.list.show(items);
    this.mark();
    if (!all && !this.damaged.length) this.tellEmpty(say("none"), say("noneHint"), "inbox");
    else if (!items.length) this.tellEmpty(say("noMatch"), say("noMatchHint"), "search");
    else this.empty.hidden = true;
    this.frame.hidden = !this.empty.hidden;
  }

  // Shows what is chosen and what is picked.
  mark() {
    this.root.classList.toggle("adiff-picking", this.several.keys.size > 0);
    for (const row of this.frame.querySelectorAll(".adiff-row")) markRow(this, row);
  }

  // Opens or closes a library.
  toggle(name) {
    if (!this.closed.delete(name)) this.closed.add(name);
    this.draw();
  }

  // What the libraries hold together: tags and licences in use, the labels for the nodes' lists.
  takeStock() {
    const [uses, licences] = [new Map(), new Set()];
    const defects = this.libraries.flatMap((library) => library.defects);
    for (const defect of defects) {
      for (const tag of defect.tags) uses.set(tag, (uses.get(tag) ?? 0) + 1);
      if (defect.notes.licence) licences.add(defect.notes.licence);
    }
    const often = [...uses].sort((one, other) => other[1] - one[1] || order.compare(one[0], other[0])).slice(0, TAGS);
    this.known = { tags: [...uses.keys()].sort(order.compare), licences: [...licences].sort(order.compare), often };
    if (!uses.has(this.filter.tag)) this.filter.tag = "";
    if (!this.libraries.some((library) => library.name === this.filter.library)) this.filter.library = "";
    this.several.stay();
    offer(defects.map((defect) => defect.label));
  }

  // The libraries and tags to choose from, redrawn only when they are others.
  drawChoices() {
    const names = this.libraries.map((library) => library.name);
    const { often } = this.known;
    const state = JSON.stringify([names, often, this.filter.tag, this.filter.library]);
    if (state === this.choices) return;
    this.choices = state;
    const options = [["", say("all")], ...names.map((name) => [name, name.replace(/\.safetensors$/, "")])];
    this.choice.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    this.choice.value = this.filter.library;
    this.tags.hidden = !often.length;
    this.tags.replaceChildren(...often.map(([tag, number]) => element(
      "button",
      {
        type: "button", class: "adiff-chip", "aria-pressed": String(this.filter.tag === tag),
        onclick: () => this.filterBy({ tag: this.filter.tag === tag ? "" : tag }),
      },
      element("span", {}, tag), element("small", {}, String(number)),
    )));
  }

  // Arrow keys go from row to row; with Shift they pick on the way.
  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.classList.contains("adiff-row")) return;
    event.preventDefault();
    const keys = this.list.items.filter((item) => item.defect).map((item) => item.key);
    const key = keys[keys.indexOf(event.target.dataset.key) + step];
    if (key === undefined) return;
    this.list.focus(key);
    if (event.shiftKey) this.several.add([event.target.dataset.key, key]);
  }

  find(key) {
    for (const library of this.libraries) {
      const defect = library.defects.find((one) => keyOf(library, one) === key);
      if (defect) return { library, defect };
    }
    return null;
  }

  // Shows a defect's form, or none: the focus goes back from there to the row.
  choose(key, back = this.chosen) {
    const left = this.form.contains(document.activeElement);
    this.chosen = key;
    const found = key && this.find(key);
    if (!found) {
      this.chosen = null;
      this.form.replaceChildren();
      if (left) this.list.focus(back);
    } else {
      const { library, defect } = found;
      this.form.replaceChildren(details({
        ...found, known: this.known, close: () => this.choose(null), add: () => addLoader(defect.label),
        remove: () => this.remove(library, defect), save: (changes) => this.save(library, defect, changes),
      }));
    }
    this.mark();
    if (found) requestAnimationFrame(() => this.list.reveal(key));
  }

  // Opens a defect's form from the keyboard.
  enter(key) {
    this.choose(key);
    this.form.querySelector("input:enabled, footer button")?.focus();
  }

  // The library as the server has it now takes the place of what it was.
  replace(library) {
    const place = this.libraries.findIndex((one) => one.name === library.name);
    this.libraries[place < 0 ? this.libraries.length : place] = this.sorted(library);
    this.takeStock();
  }

  // Sends a change; what others have changed meanwhile is fetched, and said.
  async send(what, content) {
    this.root.classList.add("adiff-busy");
    try {
      return await change(what, content);
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 409) throw error;
      await this.refresh();
      throw new Refusal(409, what === "undo" ? error.message : say("conflict"));
    } finally {
      this.root.classList.remove("adiff-busy");
    }
  }

  // Changes defects of a library, all or none: edits is a list of [defect, what becomes other]. Returns what takes it
  // back, and their names now.
  async edit(library, edits) {
    const wanted = Object.fromEntries(edits.map(([defect, changes]) => [nameOf(defect), changes]));
    const answer = await this.sendSeen("edit", library, { edits: wanted });
    const found = new Map(answer.library.defects.map((entry) => [nameOf(entry), entry.label]));
    const labels = edits.map(([defect], index) => [defect.label, found.get(answer.names[index])]);
    renameInGraph(Object.fromEntries(labels));
    const back = Object.fromEntries(labels.map(([before, after]) => [after, before]));
    return { edit: answer.edit, library: library.name, labels: back, names: answer.names };
  }

  // Removes defects of a library, all or none; returns what takes it back.
  async takeOut(library, defects) {
    const answer = await this.sendSeen("remove", library, { defects: defects.map(nameOf) });
    return { edit: answer.edit, library: library.name, labels: {} };
  }

  // Sends a change of what is seen of a library here; it is then as the server has it.
  async sendSeen(what, library, content) {
    const { state } = this.libraries.find((one) => one.name === library.name) ?? library; // newer after a conflict
    const answer = await this.send(what, { library: library.name, seen: state, ...content });
    this.replace(answer.library);
    return answer;
  }

  async save(library, defect, changes) {
    const step = await this.edit(library, [[defect, changes]]);
    const [name] = step.names;
    this.keep([step]);
    this.draw();
    const key = [library.name, name].join("\n");
    this.choose(null, key);
    this.list.reveal(key);
    this.tell(say("saved", { name }), { undo: true });
  }

  async remove(library, defect) {
    if (this.busy) return; // the Enter key goes where the pointer does not
    try {
      const step = await this.takeOut(library, [defect]);
      this.keep([step]);
      if (this.chosen === keyOf(library, defect)) this.choose(null);
      this.draw();
      this.tell(say("removed", { name: nameOf(defect) }), { undo: true });
    } catch (error) {
      this.tell(error.message, { bad: true });
    }
  }

  async undo() {
    const steps = this.steps.at(-1);
    if (!steps || this.busy) return;
    const names = [];
    try {
      while (steps.length) {
        const { edit, library, labels } = steps.at(-1);
        const answer = await this.send("undo", { edit, library });
        steps.pop();
        this.replace(answer.library);
        renameInGraph(labels);
        names.push(...answer.names.map((name) => [library, name]));
      }
      const [[, name], ...more] = names;
      this.tell(more.length ? say("severalRestored", { n: names.length }) : say("restored", { name }));
      this.several.clear();
      this.choose(null);
    } catch (error) {
      if (error.status === 410) steps.pop();
      this.tell(error.message, { bad: true });
    }
    this.draw();
    if (names.length) this.list.reveal(names[0].join("\n"));
    if (!steps.length) this.steps.splice(this.steps.indexOf(steps), 1);
    this.keep();
  }

  keep(steps) {
    if (steps) this.steps.push(steps);
    this.back.disabled = !this.steps.length;
    this.back.title = say(this.steps.length ? "undo" : "nothingToUndo");
  }

  tell(text, { undo = false, bad = false } = {}) {
    clearTimeout(this.timer);
    const button = element("button", { type: "button", class: "adiff-link", onclick: () => this.undo() }, say("undoShort"));
    this.message.replaceChildren(element("span", {}, text), ...(undo ? [button] : []));
    this.message.classList.toggle("adiff-bad", bad);
    this.message.hidden = false;
    this.timer = setTimeout(() => { this.message.hidden = true; }, LONG);
  }

  tellEmpty(title, hint, sign) {
    this.empty.replaceChildren(icon(sign), element("b", {}, title), element("p", {}, hint));
    this.empty.hidden = false;
  }
}

let panel; // made when the tab is opened first, or a graph has run, and kept

function show(place) {
  if (panel && panel.root.parentElement === place) return; // the front end calls again whenever it draws
  panel ??= new Panel();
  place.classList.add("adiff-place");
  place.replaceChildren(panel.root);
  panel.list.update();
  panel.refresh();
}

app.registerExtension({
  name: "adiff.library",
  async setup() {
    document.head.append(element("link", { rel: "stylesheet", href: new URL("panel.css", import.meta.url).href }));
    await loadWords();
    takeDrops();
    app.extensionManager.registerSidebarTab({
      id: "adiff-library", icon: "pi pi-bullseye", title: say("title"), tooltip: say("hint"), type: "custom", render: show,
    });
    api.addEventListener("execution_success", () => {
      panel ??= new Panel(); // shown or not: a library may have been saved, and loaders offer what it holds
      panel.refresh();
    });
  },
});
