export default function ({ parentElement, data, setStateValue }) {
  const strip = parentElement.querySelector(".strip");
  strip.setAttribute("aria-label", data.label);
  strip.replaceChildren(...data.pictures.map(({ key, name, url }) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {
      type: "radio", name: "strip", value: key, checked: key === data.chosen,
    });
    const picture = Object.assign(document.createElement("span"), { className: "picture" });
    picture.style.backgroundImage = `url(${url})`;
    const text = Object.assign(document.createElement("span"), { className: "name", textContent: name, title: name });
    input.onchange = () => setStateValue("chosen", key);
    label.append(input, picture, text);
    return label;
  }));
}
