// Several defects at once: picked with Ctrl, Shift, the space bar or a box, then tagged or deleted together.

import { tagInput } from "./details.js";
import { element, iconButton } from "./element.js";
import { say } from "./words.js";

const MOST = 200; // as many as the server can take back
const NAMED = 4; // names in the form

const same = (one, other) => one.toLowerCase() === other.toLowerCase();

export class Several {
  constructor(panel) {
    this.panel = panel;
    this.keys = new Set();
    this.last = null; // the key from which Shift picks
    this.working = false;
  }

  // The box of a row.
  box(key, name) {
    return element("input", {
      type: "checkbox", class: "adiff-pick", checked: this.keys.has(key), "aria-label": say("pick", { name }), title: say("pick", { name }),
      onclick: (event) => {
        event.stopPropagation();
        this.pick(key, event.shiftKey);
      },
    });
  }

  // A click on a row, or a key pressed in it; returns whether it picks, and is none for the row itself.
  takes(event, key) {
    const { ctrlKey, metaKey, shiftKey } = event;
    const chosen = event.type === "click" ? ctrlKey || metaKey || shiftKey : event.key === " ";
    if (chosen) this.pick(key, shiftKey);
    else if (event.type === "click") this.clear();
    else if (event.key.toLowerCase() === "a" && (ctrlKey || metaKey)) this.add(this.panel.list.items.map((item) => item.key));
    else if (event.key === "Escape" && this.keys.size) this.clear();
    else return false;
    if (event.type !== "click") event.preventDefault();
    return chosen || event.type !== "click";
  }

  // Picks a row or lets it go; span: picks all from the last one to it.
  pick(key, span = false) {
    const { chosen, list } = this.panel;
    if (!this.keys.size && chosen && chosen !== key) this.last = chosen;
    const order = list.items.map((item) => item.key);
    const [from, to] = [order.indexOf(this.last), order.indexOf(key)].sort((one, other) => one - other);
    if (this.keys.has(key) && !span) this.keys.delete(key);
    else if (span && from >= 0) this.add(order.slice(from, to + 1), false);
    else this.add(this.keys.size || !chosen ? [key] : [chosen, key], false);
    this.last = key;
    this.show();
  }

  add(keys, show = true) {
    for (const key of keys) {
      const found = this.panel.find(key);
      if (!found || found.library.locked || this.keys.has(key)) continue;
      if (this.keys.size >= MOST) {
        this.panel.tell(say("most", { n: MOST }));
        break;
      }
      this.keys.add(key);
    }
    if (show) this.show();
  }

  clear() {
    if (!this.keys.size) return;
    this.keys.clear();
    this.show();
  }

  // Lets go of what is there no more.
  stay() {
    const gone = [...this.keys].filter((key) => !this.panel.find(key));
    for (const key of gone) this.keys.delete(key);
    if (gone.length && !this.working) this.show();
  }

  // Marks the rows, and has the form for those picked in the place of the one for one defect.
  show() {
    const { panel, keys } = this;
    panel.choose(null);
    if (keys.size) panel.form.replaceChildren(this.form([...keys].map((key) => panel.find(key).defect)));
  }

  form(defects) {
    const { known } = this.panel;
    const common = defects[0].tags.filter((tag) => defects.every((defect) => defect.tags.includes(tag)));
    const tags = tagInput(common, known.tags, false);
    const names = defects.map((defect) => `${defect.product}/${defect.defect}`);
    const more = names.length > NAMED ? ` +${names.length - NAMED}` : "";
    const submit = (event) => {
      event.preventDefault();
      const [given, gone] = [tags.get(), common.filter((tag) => !tags.get().includes(tag))];
      const tagged = (defect) => {
        const kept = defect.tags.filter((tag) => !gone.includes(tag));
        return [...kept, ...given.filter((tag) => !kept.some((other) => same(tag, other)))];
      };
      this.change(
        (n) => say("severalSaved", { n }), (defect) => tagged(defect).join() !== defect.tags.join(),
        (library, defects) => this.panel.edit(library, defects.map((defect) => [defect, { tags: tagged(defect) }])),
      );
    };
    const remove = () => this.change(
      (n) => say("severalRemoved", { n }), () => true, (library, gone) => this.panel.takeOut(library, gone),
    );
    const form = element(
      "form", { class: "adiff-details adiff-several", onsubmit: submit, autocomplete: "off" },
      element(
        "header", {},
        element(
          "div", { class: "adiff-about" }, element("h3", { role: "status" }, say("picked", { n: defects.length })),
          element("p", { title: names.join("\n") }, names.slice(0, NAMED).join(", ") + more),
        ),
        iconButton("times", say("unpick"), () => this.clear()),
      ),
      element("div", { class: "adiff-field adiff-wide" }, element("span", {}, say("tagsOfAll")), tags.box),
      element(
        "footer", {}, element("span", { class: "adiff-space" }),
        iconButton("trash", say("remove"), remove, { class: "adiff-danger" }),
        element("button", { type: "submit", class: "adiff-button adiff-primary" }, say("save")),
      ),
    );
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.clear();
    });
    return form;
  }

  // Changes what is picked, each library's defects at once, to be taken back together: work(library, defects) returns a
  // step, wanted(defect) says whether there is anything to change, told(n) what was done. What is left when it is refused
  // stays picked.
  async change(told, wanted, work) {
    if (this.working) return;
    const { panel } = this;
    const [steps, libraries] = [[], new Map()];
    let [refusal, n] = [null, 0];
    for (const key of this.keys) {
      const { library, defect } = panel.find(key);
      if (!libraries.has(library)) libraries.set(library, new Map());
      libraries.get(library).set(key, defect);
    }
    this.working = true;
    try {
      for (const [library, picked] of libraries) {
        const defects = [...picked.values()].filter(wanted);
        if (defects.length) steps.push(await work(library, defects));
        for (const key of picked.keys()) this.keys.delete(key);
        n += defects.length;
      }
    } catch (error) {
      refusal = error;
    }
    this.working = false;
    if (steps.length) panel.keep(steps);
    panel.draw();
    this.show();
    if (refusal) panel.tell(refusal.message, { bad: true, undo: n > 0 });
    else if (n) panel.tell(told(n), { undo: true });
  }
}
