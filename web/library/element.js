// Builds a part of the page: element("button", { class: "x", onclick: f, disabled: true }, "text", child, ...).
// What comes from a library goes in as text, never as markup.

export function element(kind, attributes = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list") made[name] = value; // an input's list cannot be assigned
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

export function icon(name) {
  return element("i", { class: `pi pi-${name}`, "aria-hidden": "true" });
}

// A button that shows an icon alone; its name is read and shown as a hint.
export function iconButton(name, title, onclick, more = {}) {
  const attributes = { type: "button", title, "aria-label": title, onclick, ...more };
  return element("button", { ...attributes, class: `adiff-icon ${more.class ?? ""}` }, icon(name));
}
