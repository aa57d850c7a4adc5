/** Contractions, each word with its spelling: the list of the official evaluation. */
const contractionList = `
  aint ain't, arent aren't, cant can't, couldve could've, couldnt couldn't, couldn'tve couldn't've,
  couldnt've couldn't've, didnt didn't, doesnt doesn't, dont don't, hadnt hadn't, hadnt've hadn't've,
  hadn'tve hadn't've, hasnt hasn't, havent haven't, hed he'd, hed've he'd've, he'dve he'd've, hes he's, howd how'd,
  howll how'll, hows how's, Id've I'd've, I'dve I'd've, Im I'm, Ive I've, isnt isn't, itd it'd, itd've it'd've,
  it'dve it'd've, itll it'll, maam ma'am, mightnt mightn't, mightnt've mightn't've, mightn'tve mightn't've,
  mightve might've, mustnt mustn't, mustve must've, neednt needn't, notve not've, oclock o'clock, oughtnt oughtn't,
  ow's'at 'ow's'at, 'ows'at 'ow's'at, 'ow'sat 'ow's'at, shant shan't, shed've she'd've, she'dve she'd've,
  shouldve should've, shouldnt shouldn't, shouldnt've shouldn't've, shouldn'tve shouldn't've, somebody'd somebodyd,
  somebodyd've somebody'd've, somebody'dve somebody'd've, somebodyll somebody'll, somebodys somebody's,
  someoned someone'd, someoned've someone'd've, someone'dve someone'd've, someonell someone'll, someones someone's,
  somethingd something'd, somethingd've something'd've, something'dve something'd've, somethingll something'll,
  thats that's, thered there'd, thered've there'd've, there'dve there'd've, therere there're, theres there's,
  theyd they'd, theyd've they'd've, they'dve they'd've, theyll they'll, theyre they're, theyve they've, twas 'twas,
  wasnt wasn't, wed've we'd've, we'dve we'd've, weve we've, werent weren't, whatll what'll, whatre what're,
  whats what's, whatve what've, whens when's, whered where'd, wheres where's, whereve where've, whod who'd,
  whod've who'd've, who'dve who'd've, wholl who'll, whos who's, whove who've, whyll why'll, whyre why're, whys why's,
  wont won't, wouldve would've, wouldnt wouldn't, wouldnt've wouldn't've, wouldn'tve wouldn't've, yall y'all,
  yall'll y'all'll, y'allll y'all'll, yall'd've y'all'd've, y'alld've y'all'd've, y'all'dve y'all'd've, youd you'd,
  youd've you'd've, you'dve you'd've, youll you'll, youre you're, youve you've`

const contractions = new Map(contractionList.split(',').map((pair) => pair.trim().split(' ') as [word: string, spelling: string]))
const numbers = new Map(
  ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'].map((word, i) => [word, `${i}`])
).set('none', '0')
const articles = ['a', 'an', 'the']
const punctuation = [...';/[]"{}()=+\\_-><@`,?!']

/**
 * Removes or replaces punctuation. The official pattern of periods lacks a look-behind, so that a period after a digit goes too, and its
 * substitution stops after 32 periods: `re.UNICODE` stands in the place of the count.
 */
const withoutPunctuation = (text: string): string => {
  const hasComma = /\d,\d/.test(text)
  const spaced = punctuation.reduce((out, mark) => {
    const isRemoved = hasComma || text.includes(`${mark} `) || text.includes(` ${mark}`)
    return out.replaceAll(mark, isRemoved ? '' : ' ')
  }, text)
  let periods = 0
  return spaced.replace(/\.(?!\d)/g, (period) => (periods++ < 32 ? '' : period))
}

/** Lower case, digits for the words of numbers, no articles, contractions with their apostrophe. */
const normalizedWords = (text: string): string =>
  text
    .toLowerCase()
    .split(/\s+/)
    .map((word) => numbers.get(word) ?? word)
    .filter((word) => word !== '' && !articles.includes(word))
    .map((word) => contractions.get(word) ?? word)
    .join(' ')

const oneLine = (text: string): string => text.replace(/[\n\t]/g, ' ').trim()
const normalize = (text: string): string => normalizedWords(withoutPunctuation(text))

/**
 * VQA accuracy over several people's answers, ten in VQAv2 and TextVQA: the mean over all but one of them of min(1, equal answers / 3).
 * Answers are normalized where the people's answers differ. Source: `vqaEval.py` (GT-Vision-Lab/VQA); Antol et al. 2015.
 */
export const vqaAccuracy = (answer: string, references: readonly string[]): number => {
  const given = references.map(oneLine)
  const isUnanimous = new Set(given).size === 1
  const [text, all] = isUnanimous ? [oneLine(answer), given] : [normalize(oneLine(answer)), given.map(normalize)]
  const equal = all.filter((reference) => reference === text).length
  const accuracies = all.map((reference) => Math.min(1, (equal - (reference === text ? 1 : 0)) / 3))
  return accuracies.reduce((sum, accuracy) => sum + accuracy, 0) / accuracies.length
}
