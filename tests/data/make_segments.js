// Makes segments.json, the data of tests/test_segments_oracle.py: seeded random texts and what Twilio's own calculator counts.
//   npm install sms-segments-calculator@1.3.0 && node make_segments.js > segments.json
const { SegmentedMessage } = require('sms-segments-calculator');

let state = 20260615;
function random(below) {  // mulberry32
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return Math.floor(((t ^ (t >>> 14)) >>> 0) / 4294967296 * below);
}
const of = (list) => list[random(list.length)];

const WORDS = {
  es: 'Hola Ana gracias por tu compra mañana señor año niño envío pedido descuento válido hasta el domingo ¿Quedaste contento? ¡Vuelve! código 15 % página teléfono próximo según aquí también más día 200 € responde BAJA https://t.example/a_b~c [x] {y} \\ | ^'.split(' '),
  pt: 'Olá João obrigado pela sua compra amanhã promoção você não coração até ação à noite é só às três avó pão R$ 50 cupom grátis responda SAIR https://t.example/x ç ü œ 20 € ~ preço'.split(' '),
  plain: 'Hola Ana gracias por su compra de hoy tu pedido ya va en camino responde BAJA mañana niño año señor ¡Hola! ¿Qué tal? é ñ Ñ ü à è ò ù Ç'.split(' '),
};
const EDGES = ['€', '€€', '[', '~', '\n', 'ñ', 'á', '🎉', '👍🏽', '🇲🇽', '👩‍👩‍👧', '❤️', 'ç', 'ã', '“', '–', '…', 'º', 'e\u0301', '\r\n', '^', '|'];

function filler(language, length) {
  let text = '';
  while (text.length < length) text += of(WORDS[language]) + ' ';
  return [...text].slice(0, length).join('');
}

const cases = [];
while (cases.length < 1200) {
  const language = of(['es', 'pt', 'plain', 'plain']);
  // Half of the texts end, or have their doubles, right at a boundary of a part.
  const boundary = of([70, 134, 201, 160, 306, 153, 67]) + random(7) - 3;
  let text = random(2) ? filler(language, random(320)) : filler(language, boundary);
  for (let n = random(5); n > 0; n--) {
    const chars = [...text];
    const at = random(3) ? random(chars.length + 1) : Math.min(chars.length, of([66, 67, 69, 70, 133, 134, 152, 153, 159, 160, 305, 306]));
    chars.splice(at, 0, of(EDGES));
    text = chars.join('');
  }
  const counted = new SegmentedMessage(text, 'auto', false);
  cases.push([text, counted.segmentsCount, counted.encodingName]);
}
process.stdout.write('[\n' + cases.map((one) => JSON.stringify(one)).join(',\n') + '\n]\n');
