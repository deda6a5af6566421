export default function ({ parentElement, data }) {
  const figure = parentElement.querySelector(".compare");
  const range = figure.querySelector("input");
  const set = (name, value) => figure.style.setProperty(name, value);
  const show = () => {
    set("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value} %`);
  };
  const follow = (event) => {
    const place = figure.getBoundingClientRect();
    range.value = (100 * (event.clientX - place.left)) / place.width;
    show();
  };
  for (const which of ["before", "after"]) {
    const image = figure.querySelector(`img.${which}`);
    if (image.src !== data[which]) image.src = data[which];
    image.alt = data[`${which}Name`];
    figure.querySelector(`.${which}-name`).textContent = data[`${which}Name`];
  }
  set("--ratio", data.width / data.height);
  set("--widest", `calc(min(54vh, 44rem) * ${data.width / data.height})`);
  range.setAttribute("aria-label", data.label);
  range.oninput = show;
  figure.onmousedown = (event) => event.preventDefault(); // or the browser would give the focus away again
  figure.onpointerdown = (event) => {
    figure.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true });
    follow(event);
  };
  figure.onpointermove = (event) => {
    if (figure.hasPointerCapture(event.pointerId)) follow(event);
  };
  show();
}
