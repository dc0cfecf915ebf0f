/** Some pages of plain notes to try the page with: some weeks in a greenhouse, put together from short lists. */

/** About 1,400 tokens: half a minute of reading on a slow machine, and room in a small context. */
const days = 16;
const helpers = ["Mira", "Jonas", "Adele", "Tomás", "Wren"];
const beds = ["tomatoes", "peppers", "cucumbers", "basil", "beans", "chard", "lettuce"];
const sights = [
  "The new leaves are a clear green and the stems stand up by themselves.",
  "Two of the lower leaves were yellow, so the feed was made a little weaker.",
  "A few aphids sat under the leaves; we washed them off and let the ladybirds do the rest.",
  "The soil was dry two fingers down although the surface looked dark.",
  "The first flowers are open, and the door stayed ajar for the bees.",
  "Growth has slowed, which is what the seed packet says to expect in this week.",
];
const chores = [
  "cleaned the north gutter",
  "mended the latch of the west window",
  "turned the compost, which steamed",
  "tied the tall plants to new canes",
  "moved the shade cloth one frame further south",
  "counted the seed trays and wrote the labels again in pencil",
  "tested the pump and changed its filter",
];
const remarks = [
  "The pump ran all night without a stop.",
  "The thermometer by the door reads one degree too high, as before.",
  "Nothing else to report.",
  "The neighbour brought three bags of leaves for the mulch.",
  "We agreed to leave the lights off until the days get shorter.",
];

export function exampleNotes() {
  const entries = Array.from({ length: days }, (_, index) => entry(index));
  return `${opening}\n\n${entries.join("\n\n")}\n\n${closing}`;
}

const opening = `Greenhouse notebook, season two

These notes are written every day by whoever closes the door. The house has seven beds and one water tank of 900 litres. \
We keep it between 16 and 27 degrees. The spare key hangs behind the blue watering can.`;

const closing = `End of the notes. The best bed was the beans, the worst was the lettuce, which bolted in the hot week. \
Next year the basil goes beside the tomatoes, the tank gets a lid, and Wren looks after the seed order.`;

/** Small multiplications make the days differ without chance: the example is the same text for everybody. */
function entry(index) {
  const of = (list, step) => list[(index * step + Math.floor(index / list.length)) % list.length];
  const morning = 15 + ((index * 7) % 6);
  const noon = morning + 6 + ((index * 5) % 5);
  const litres = 40 + ((index * 13) % 35);
  return `Day ${index + 1}. ${of(helpers, 2)} opened at seven with ${morning} degrees; by noon it was ${noon}. \
We gave ${litres} litres of water, most of it to the ${of(beds, 3)}. ${of(sights, 1)} \
In the afternoon ${of(helpers, 3)} ${of(chores, 4)}. ${of(remarks, 2)}`;
}
