/** A term that the code base does not use, and the standard term that replaces the term. */
export interface Rule {
  /**
   * `words`: in prose and inside identifiers (`filmFrames` contains the word `film`). `identifier`: as written, in code and prose.
   * `name`: as the whole name of a variable, parameter or property in TypeScript; in prose the word is plain English (`each`).
   */
  readonly kind: 'words' | 'identifier' | 'name'
  readonly term: string
  readonly use: string
}

/** A legitimate use of a term: in files whose path starts with `path`, on lines that match `line`. */
export interface Allowed {
  readonly path: string
  readonly term: string
  readonly line?: RegExp
  readonly reason: string
}

const words = (use: string, ...terms: readonly string[]): readonly Rule[] => terms.map((term) => ({ kind: 'words', term, use }))
const identifiers = (use: string, ...terms: readonly string[]): readonly Rule[] =>
  terms.map((term) => ({ kind: 'identifier', term, use }))

const names = (use: string, ...terms: readonly string[]): readonly Rule[] => terms.map((term) => ({ kind: 'name', term, use }))

/** The terms that `npm run lint` refuses in identifiers, comments, strings, help and documents. */
export const rules: readonly Rule[] = [
  ...words('video', 'film', 'films'),
  ...words('image', 'picture', 'pictures', 'pictured'),
  ...words('gradient, backward pass', 'slope', 'slopes', 'way back'),
  ...words('random generator, rng', 'chance', 'chances'),
  ...words('sampled, rendered', 'drawn'),
  ...words('warning, diagnostic', 'oddity', 'oddities', 'remark', 'remarks'),
  ...words('error, issue', 'fault', 'faults', 'faulty'),
  ...words('mismatch', 'misfit', 'misfits'),
  ...words('fix', 'mend', 'mends', 'mended', 'mending'),
  ...words('training labels, supervised positions', 'lesson', 'lessons', 'learned place', 'learned places', 'learned tokens'),
  ...words('position, index, tile', 'places'),
  ...words('span, range', 'stretch', 'stretches'),
  ...words('vision encoder', 'eyes'),
  ...words('softmax', 'soften', 'softens', 'softened'),
  ...words('given, reported, stated', 'told', 'untold'),
  ...words('gated MLP', 'gated unit'),
  ...words('attention block', 'attention branch'),
  ...words('beam can still improve / cannot', 'hopeful', 'hopeless'),
  ...words('splitting on special tokens', 'cutter', 'cutters'),
  ...words('validation set', 'held out'),
  ...words('the number of', 'so many'),
  ...words('again', 'anew'),
  ...words('the standard noun of the field', 'doer', 'doers', 'stranger', 'strangers', 'door', 'doors', 'talk', 'talks'),
  ...words(
    'the noun: a caller, a thread, the file',
    'nobody',
    'somebody',
    'whatever',
    'whichever',
    'nothing where',
    'at hand',
    'who'
  ),
  ...names('the noun: issue, sample, model, …', 'each'),
  ...names('the noun, or inner and outer', 'own'),
  ...names('isKept, retained, or the noun', 'kept'),
  ...names('position, index, tile', 'place'),
  ...names('reported, messages', 'said', 'heard'),
  ...names('vision encoder', 'eye'),
  ...names('distance, error', 'apart'),
  ...names('format', 'form', 'forms'),
  ...names('capacity, free', 'room', 'rooms'),
  ...names('values, calls, visited', 'seen'),
  ...names('failure', 'trouble', 'troubles'),
  ...identifiers('collate', 'batchOf', 'packedBatchOf'),
  ...identifiers('mixture', 'readMeta'),
  ...identifiers('callbacks', 'Listener'),
  ...identifiers('image features, feature cache', 'featuresOf', 'loadEyes'),
  ...identifiers('numKeyValueHeads', 'keyHeads'),
  ...identifiers('attention mask options', 'Visibility'),
  ...identifiers('fused decoder', 'layersTogether', 'mapsTogether')
]

/** Every legitimate use of a refused term, each with its reason. */
export const allowed: readonly Allowed[] = [
  { path: 'properties/lint/', term: '*', reason: 'the lint names the terms that it refuses' },
  { path: 'processors/', term: 'film', line: /film grain/, reason: 'film grain is the name of a codec feature' },
  { path: '', term: '*', line: /@deprecated|alias/i, reason: 'a deprecated name stays readable beside its new name' },
  { path: 'processors/image/draw.ts', term: 'drawn', reason: 'boxes are drawn on an image' },
  { path: 'generation/cli/commands/ask-command.ts', term: 'drawn', line: /--draw/, reason: 'boxes are drawn on an image' },
  { path: 'generation/evaluate/metrics/vqa-accuracy.ts', term: '*', reason: 'the words of the official evaluation' },
  { path: 'generation/plot.ts', term: 'drawn', reason: 'a plot is drawn' },
  {
    path: 'generation/chat/history.ts',
    term: 'pictures',
    line: /pictures \?\?/,
    reason: 'the old name of the option images works'
  },
  {
    path: 'generation/checkpoint/inspect.ts',
    term: 'oddities',
    line: /diagnostics/,
    reason: 'the old name of diagnostics works'
  },
  { path: 'generation/', term: 'remark', line: /onRemark/, reason: 'the old name of the option onWarning works' },
  {
    path: '',
    term: 'picture',
    line: /Which picture|What is in (this|the) picture/,
    reason: 'questions with which the demo model was trained'
  },
  {
    path: 'generation/checkpoint/diagnostics.ts',
    term: 'own',
    reason: 'a value of the comparison of a stored head with the embeddings'
  },
  {
    path: 'properties/generation/decoding/logits-warpers.test.ts',
    term: 'kept',
    reason: 'a key of the reference file warpers.json'
  },
  { path: 'properties/package/deprecated-names.test.ts', term: '*', reason: 'the test imports every name of version 0.1' },
  {
    path: '',
    term: 'who',
    line: /'Who\?'|Who are you|(people|researchers) who|for people/,
    reason: 'a question of the demo, or a person'
  },
  { path: '', term: 'fault', line: /segmentation fault|page fault/i, reason: 'names of the operating system' },
  { path: '', term: 'faults', line: /page faults/i, reason: 'a name of the operating system' }
]
