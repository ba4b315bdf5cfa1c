// Without this script, the page shows all views below each other, and before and after side by side.
(() => {
  const MAX_ZOOM = 64, STEP = 1.25;
  const page = document.documentElement, views = [...document.querySelectorAll(".view")];
  const choice = document.getElementById("choice"), divider = document.getElementById("divider");
  const text = document.getElementById("zoom");
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  // What is shown: the left upper corner and the size of the images, in sizes of their panes.
  let x = 0, y = 0, zoom = 1, current = views[0];

  const panes = () => [...current.querySelectorAll(".pane")];
  // Screen pixels of an image pixel that is not magnified.
  const fitted = () => {
    const pane = panes()[0];
    return pane ? pane.clientWidth / pane.firstElementChild.naturalWidth : 1;
  };

  function draw() {
    x = clamp(x, 1 - zoom, 0);
    y = clamp(y, 1 - zoom, 0);
    const scale = zoom * fitted();
    for (const [name, value] of Object.entries({x, y, zoom, divider: divider.value}))
      document.getElementById("views").style.setProperty(`--${name}`, value);
    page.classList.toggle("zoomed", zoom > 1);
    page.classList.toggle("enlarged", scale > 2);
    // Traces are plots, which do not move.
    page.classList.toggle("still", !panes().length);
    text.textContent = panes().length ? `1 image pixel = ${scale.toPrecision(2)} screen pixels` : "";
  }

  // Keeps the point at (left, top), in sizes of a pane, where it is.
  function zoomTo(value, left = 0.5, top = 0.5) {
    value = clamp(value, 1, MAX_ZOOM);
    x = left - (left - x) * value / zoom;
    y = top - (top - y) * value / zoom;
    zoom = value;
    draw();
  }

  function place(event, pane) {
    const box = pane.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  function choose() {
    const before = current.dataset.shape;
    current = document.getElementById(choice.value);
    for (const view of views) view.hidden = view !== current;
    if (current.dataset.shape !== before) [x, y, zoom] = [0, 0, 1];
    draw();
  }

  const ZOOMS = {
    in: () => zoomTo(zoom * STEP),
    out: () => zoomTo(zoom / STEP),
    fit: () => zoomTo(1),
    pixels: () => zoomTo(1 / fitted()),
  };
  const KEYS = {
    "+": ZOOMS.in, "=": ZOOMS.in, "-": ZOOMS.out, "0": ZOOMS.fit,
    ArrowLeft: () => { x += 0.1; draw(); }, ArrowRight: () => { x -= 0.1; draw(); },
    ArrowUp: () => { y += 0.1; draw(); }, ArrowDown: () => { y -= 0.1; draw(); },
  };

  function listen(pane) {
    const pointers = new Map();
    pane.addEventListener("pointerdown", event => {
      pointers.set(event.pointerId, place(event, pane));
      pane.setPointerCapture(event.pointerId);
    });
    pane.addEventListener("pointermove", event => {
      const old = pointers.get(event.pointerId);
      if (!old) return;
      const now = place(event, pane);
      const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
      pointers.set(event.pointerId, now);
      if (other) {
        const distance = point => Math.hypot(point[0] - other[0], point[1] - other[1]);
        if (distance(old) > 0) zoomTo(zoom * distance(now) / distance(old), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      } else {
        x += now[0] - old[0];
        y += now[1] - old[1];
        draw();
      }
    });
    for (const name of ["pointerup", "pointercancel"])
      pane.addEventListener(name, event => pointers.delete(event.pointerId));
    pane.addEventListener("wheel", event => {
      const asked = event.ctrlKey || pane.closest(".linked").contains(document.activeElement);
      // The page scrolls where there is nothing left to zoom.
      if (!asked || (event.deltaY > 0 && zoom === 1)) return;
      event.preventDefault();
      zoomTo(zoom * Math.exp(-clamp(event.deltaY, -100, 100) / 400), ...place(event, pane));
    }, {passive: false});
  }

  for (const group of document.querySelectorAll(".linked")) {
    group.tabIndex = 0;
    group.addEventListener("keydown", event => {
      if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      KEYS[event.key]();
    });
    group.querySelectorAll(".pane").forEach(listen);
  }

  for (const compare of document.querySelectorAll(".compare")) {
    const handle = compare.appendChild(Object.assign(document.createElement("div"), {className: "divider"}));
    handle.addEventListener("pointerdown", event => handle.setPointerCapture(event.pointerId));
    handle.addEventListener("pointermove", event => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      divider.value = clamp(100 * place(event, compare)[0], 0, 100);
      draw();
    });
  }

  document.querySelectorAll("[data-zoom]").forEach(button => button.addEventListener("click", ZOOMS[button.dataset.zoom]));
  document.querySelectorAll("[data-divider]").forEach(button => button.addEventListener("click", () => {
    divider.value = button.dataset.divider;
    draw();
  }));
  divider.addEventListener("input", draw);
  choice.addEventListener("change", choose);
  // The size of an image is known when it is decoded.
  addEventListener("load", draw);
  addEventListener("resize", draw);
  document.querySelector(".controls").hidden = false;
  page.classList.add("interactive");
  choose();
})();
