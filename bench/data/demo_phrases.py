"""The words of the demo: what its items are made of and how its users talk.

Every list that carries style (openings, closings, remarks, verdicts, connectors, intensifiers) or an item's identity
(names, titles, topics, places) is cut in two by the position of its entries: even ones belong to the benchmark, odd
ones to the population that the demo's model was pre-trained on. `SHARED` lists (adjectives, reasons, sentence frames,
aspects, genres) belong to both.
"""

from __future__ import annotations

from dataclasses import dataclass


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", " ").split("|") if part.strip())


@dataclass(frozen=True)
class Kind:
    """What one category's items are made of. `{who}`, `{place}`, ... in its patterns are an item's facts."""

    category: str
    verb: str
    thing: str
    maker: str
    genres: tuple[str, ...]
    roles: tuple[str, ...]
    seconds: tuple[str, ...]
    places: tuple[str, ...]
    moments: tuple[str, ...]
    scenes: tuple[str, ...]
    details: tuple[str, ...]
    aspects: tuple[str, ...]
    descriptions: tuple[str, ...]
    extras: tuple[str, ...]


FIRST_NAMES = _list("""
Elinor | Marta | Tobias | Hector | Wilma | Petra | Ansel | Greta | Jonah | Lydia | Casper | Noor | Ivo | Selma | Bruno
| Agnes | Mirko | Odette | Felix | Ruth | Amadou | Clara | Stellan | Ines | Rufus | Thea | Gideon | Mabel | Anton
| Salome | Leif | Viola | Emil | Dora | Ezra | Paloma | Lorne | Hedda | Silas | Junia | Marek | Edith | Basil | Nell
| Arlo | Freya | Otis | Wren
""")
SURNAME_HEADS = _list("""
Ash | Birch | Crow | Dun | Elder | Fair | Gold | Hart | Iron | Kestrel | Lang | Marsh | North | Oak | Pike | Quill
| Raven | Stone | Thorn | Under | Vane | Wick | Yarrow | Brack | Clay | Drift | Fen | Glen | Hazel | Moor
""")
SURNAME_TAILS = _list("""
ford | croft | ley | by | combe | wood | field | shaw | worth | mere | wick | dale | ham | gate | burn | holt | ridge
| well | stead | hurst
""")
PLACE_NAMES = _list("""
Orrin | Calder | Vesper | Malloy | Tamsin | Grendal | Hollis | Isker | Jarrow | Kelda | Lorrent | Merrow | Nethan
| Ostrava | Pellin | Quarrel | Rossan | Sable | Torvik | Ulver | Varna | Wexley | Yelland | Zennor | Ardmore | Brisco
| Corran | Dellow | Eskar | Fallon
""")
TITLE_ADJECTIVES = _list("""
Silent | Crooked | Paper | Burning | Hollow | Distant | Velvet | Broken | Winter | Amber | Borrowed | Salted | Golden
| Forgotten | Second | Narrow | Drowned | Electric | Patient | Scarlet | Restless | Copper | Last | Wandering | Tidal
| Quiet | Pale | Midnight | Gentle | Rusted | Blind | Summer
""")
TITLE_NOUNS = _list("""
Harbor | Orchard | Lantern | Compass | Garden | Letter | River | Mirror | Clock | Sparrow | Bridge | Island | Station
| Needle | Ladder | Furnace | Meadow | Anchor | Window | Carousel | Engine | Feather | Kingdom | Tide | Alphabet
| Violin | Market | Cathedral | Avenue | Glacier | Ferry | Chorus | Atlas | Canyon | Parade | Signal
""")
TITLE_FRAMES = (
    "The {adjective} {noun}",
    "{adjective} {noun}",
    "The {noun} of {place}",
    "A {noun} for {first}",
    "{noun} and {noun2}",
    "Under the {adjective} {noun}",
    "The {noun}, the {noun2}",
    "{first}'s {noun}",
)

TOPICS = _list("""
a stolen inheritance | the winter a town lost its power | two sisters who stopped talking | a debt nobody remembers
| the price of loyalty | growing old far from home | a letter that arrives thirty years late | the end of a long marriage
| a summer job gone wrong | the weight of a family name | learning to forgive a father | a flood that changed a valley
| the first year after a funeral | a friendship between rivals | a promise made at sea | leaving the city for good
| a secret kept by an entire village | the long road back from illness | the closing of the last factory
| a child who will not speak | what soldiers carry home | a wedding that never happened | the hunt for a missing teacher
| a house sold too early | the cost of telling the truth | an unlikely second chance | the night the theatre burned
| a brother who vanished | strangers sharing a train | a forger who falls in love | the fight over a dry well
| one last season on the road | a trial that divides a street | the birth of a radio station
| a mother starting over at sixty | the loneliness of big hotels | a map with one wrong line | three days without sleep
| an exile who comes back | a bet between neighbours
""")

SECOND_ROLES = _list("""
the lodger | the old teacher | the night nurse | the rival cousin | the ferryman | the tax inspector | the younger twin
| the retired judge | the baker's widow | the stubborn mechanic | the town archivist | the runaway groom | the beekeeper
| the substitute priest | the piano tuner | the deaf clockmaker | the quiet deputy | the union organiser
| the travelling dentist | the failed poet | the museum guard | the orphaned apprentice | the switchboard operator
| the card player
""")

GUEST_ROLES = _list("""
the tabla player | the choir leader | the second drummer | the sound engineer | the guest trumpeter | the opera soprano
| the rhythm guitarist | the string arranger | the spoken word poet | the cello student | the retired organist
| the harmonica man | the backing singer | the bass clarinettist | the mandolin player | the beatboxer
""")

BOOKS = Kind(
    category="Books",
    verb="read",
    thing="book",
    maker="author",
    genres=_list("mystery | family saga | fantasy | memoir | historical novel | thriller"),
    roles=_list("""
a lighthouse keeper | a country doctor | a disgraced lawyer | a court translator | a village postmaster | a war widow
| a botanist | a bookbinder | a night watchman | a retired spy | a schoolteacher | a glassblower | a river pilot
| a young widow | a mapmaker | a runaway heir | a prison cook | a station master | a horse breeder | a midwife
"""),
    seconds=SECOND_ROLES,
    places=_list("""
the salt marshes of {name} | the island of {name} | the old quarter of {name} | the mountain village of {name}
| the shipyards of {name} | the boarding school in {name} | the vineyards above {name} | the border town of {name}
| the mining camp at {name} | the monastery near {name} | the canals of {name} | the frozen coast of {name}
"""),
    moments=_list("""
the fire | the trial | the confession | the wedding feast | the storm | the chase | the funeral | the auction
| the reunion | the escape | the duel | the last supper | the betrayal | the drowning | the card game | the homecoming
"""),
    scenes=_list("""
in the archive | at the mill | on the frozen lake | behind the chapel | in the cellar | at the crossroads | on the night train
| under the bridge | in the greenhouse | at the border post | on the cliff path | inside the bell tower | by the lock gate
| in the empty school | on the ferry | at the horse fair
"""),
    details=_list("""
the map on the endpapers | the recipes between chapters | the letters in the middle part | the short epilogue
| the footnotes | the family tree up front | the chapter titles | the invented dialect | the diary entries
| the two timelines | the glossary | the opening page | the unreliable narrator | the village gossip | the dream chapters
| the author's afterword
"""),
    aspects=_list(
        "the pacing | the prose | the dialogue | the ending | the world building | the translation | the humour"
    ),
    descriptions=(
        "{maker_name}'s {genre} follows {who}, {role}, to {place}. {extra}",
        "Set in {place}, this {genre} by {maker_name} tells of {topic}. {extra}",
        "A {genre} by {maker_name} about {topic}. At its heart stands {who}, {role}. {extra}",
        "{who}, {role}, comes to {place} and is drawn into {topic} in this {genre} by {maker_name}. {extra}",
    ),
    extras=_list("""
This paperback edition has three hundred and forty pages. | Winner of a regional book prize. | Includes questions for reading groups.
| The first volume of a planned trilogy. | Translated into eleven languages so far. | A debut that took nine years to write.
| With a new preface for this edition. | Illustrated with old photographs. | Printed in large, clear type. | Now out as a hardcover.
"""),
)

MOVIES = Kind(
    category="Movies_and_TV",
    verb="watch",
    thing="film",
    maker="director",
    genres=_list("crime drama | romantic comedy | science fiction film | western | documentary | period piece"),
    roles=_list("""
a suspended detective | a ballet teacher | a truck driver | a failed magician | a young surgeon | a parking attendant
| a desert guide | a divorced pilot | a bank clerk | a street photographer | a robot engineer | a sheriff's daughter
| a wedding planner | a stunt rider | a hotel pianist | a forest ranger | a chess prodigy | a getaway driver
| a news anchor | a deep sea diver
"""),
    seconds=SECOND_ROLES,
    places=_list("""
the back streets of {name} | the space station over {name} | the casino town of {name} | the ranch outside {name}
| the docks of {name} | the ski hotel in {name} | the tunnels under {name} | the oil fields of {name}
| the suburb of {name} | the old film studios of {name} | the jungle rivers of {name} | the radio tower near {name}
"""),
    moments=_list("""
the car chase | the courtroom speech | the dance number | the bank robbery | the long goodbye | the shootout | the proposal
| the plane crash | the interrogation | the dinner scene | the training montage | the rescue | the last phone call
| the kiss | the horse race | the blackout
"""),
    scenes=_list("""
across the frozen harbor | on the rooftop | in the carwash | at the fairground | in the flooded subway | on the salt flats
| in the hotel kitchen | behind the cinema | inside the elevator | at the toll booth | in the cornfield | on the aircraft carrier
| at the bowling alley | in the parking garage | by the swimming pool | on the moving train
"""),
    details=_list("""
the title sequence | the deleted scenes | the commentary track | the costumes | the handheld camera | the colour palette
| the child actors | the subtitles | the voice over | the practical effects | the cameo near the end | the split screens
| the old cars | the dog | the making-of feature | the final shot
"""),
    aspects=_list(
        "the acting | the script | the photography | the score | the editing | the picture quality | the sound mix"
    ),
    descriptions=(
        "{maker_name} directs this {genre} about {who}, {role}, in {place}. {extra}",
        "A {genre} by {maker_name} set in {place}, where everything turns on {topic}. {extra}",
        "{who}, {role}, has to face {topic} in this {genre} from director {maker_name}. {extra}",
        "In {place}, {who}, {role}, gets caught up in {topic}. A {genre} directed by {maker_name}. {extra}",
    ),
    extras=_list("""
Restored from the original camera negative. | Two discs with over an hour of extras. | Nominated for four festival awards.
| Running time one hundred and twelve minutes. | Contains both seasons on one set. | Presented in widescreen with stereo sound.
| The complete and uncut version. | Released here for the first time. | Comes with a printed booklet. | Rated for ages twelve and up.
"""),
)

MUSIC = Kind(
    category="CDs_and_Vinyl",
    verb="play",
    thing="record",
    maker="artist",
    genres=_list("folk album | jazz session | synth pop record | blues record | chamber music disc | indie rock album"),
    roles=_list("""
a young cellist | a gospel singer | a street drummer | a veteran pianist | a harp player | a church organist
| a slide guitarist | a trumpet player | a jazz bassist | a folk fiddler | a session flautist | a choir leader
| a steel guitarist | a tabla player | a clarinet soloist | a backing vocalist | a vibraphone player | an accordion player
| a beat maker | a saxophone player
"""),
    seconds=GUEST_ROLES,
    places=_list("""
the barn outside {name} | the old theatre in {name} | the church in {name} | the basement club in {name} | the mountain cabin near {name}
| the radio house of {name} | the warehouse in {name} | the lakeside studio in {name} | the town hall of {name}
| the ballroom in {name} | the garage in {name} | the opera house of {name}
"""),
    moments=_list("""
the slow waltz | the opening track | the title song | the piano ballad | the closing hymn | the long instrumental | the duet
| the live encore | the fast blues | the lullaby | the drum solo | the hidden track | the cover version | the spoken intro
| the string arrangement | the second single
"""),
    scenes=_list("""
about the harbor lights | in five four time | with the brass band | about an empty house | recorded in one take | with the children's choir
| over the church bells | about leaving town | with the muted trumpet | on side two | about a lost brother | with the broken organ
| over a drum loop | about the first snow | with the handclaps | at half speed
"""),
    details=_list("""
the liner notes | the gatefold sleeve | the bonus disc | the tape hiss | the studio chatter | the heavy vinyl | the photographs inside
| the lyric sheet | the gaps between songs | the backing choir | the harmonica | the demo versions | the crowd noise | the cover art
| the key changes | the fade outs
"""),
    aspects=_list(
        "the vocals | the production | the lyrics | the guitar work | the drumming | the mastering | the melodies"
    ),
    descriptions=(
        "{maker_name} recorded this {genre} in {place} with {who}, {role}. {extra}",
        "A {genre} by {maker_name} about {topic}, recorded in {place}. {extra}",
        "Songs about {topic}: a {genre} by {maker_name} that features {who}, {role}. {extra}",
        "On this {genre} {maker_name} and {who}, {role}, sing of {topic} from {place}. {extra}",
    ),
    extras=_list("""
Ten tracks in forty-two minutes. | Pressed on heavy black vinyl. | Remastered from the first tapes. | Includes a download code.
| Limited to two thousand copies. | With a booklet of all lyrics. | The third album in five years. | Reissued after many years.
| Two discs in a gatefold sleeve. | Cut directly from analog tape.
"""),
)

KINDS = {kind.category: kind for kind in (BOOKS, MOVIES, MUSIC)}

# SHARED: plain words and sentence frames, the same for every population.
GOOD = _list("""
warm | vivid | sharp | tender | funny | gripping | graceful | honest | rich | lively | moving | clever | bold | charming
| haunting | crisp | lovely | convincing | fresh | elegant | thoughtful | generous | memorable | inventive
""")
BAD = _list("""
flat | dull | thin | clumsy | forced | muddled | stale | slow | hollow | noisy | confusing | tired | predictable | weak
| messy | cold | uneven | careless | bland | overlong | stiff | shallow | dated | rushed
""")
GOOD_REASONS = _list("""
and it earns every minute | because nothing is explained twice | thanks to small honest touches | and it grows on second thought
| with real feeling underneath | and never shows off | because the silence does the work | and it surprised me twice
| with a light hand throughout | and it keeps its nerve to the end | because it trusts us | with more wit than expected
| and it rings true | with a fine sense of timing | because every part has a purpose | and it lingers for days
| as good as anything from that decade | without one wasted moment | and it made me laugh out loud | like an old friend talking
| because somebody did the research | with a twist I never saw coming | and it gets better each time | full of odd little corners
""")
BAD_REASONS = _list("""
and it goes on far too long | because nobody seems to care | with hardly any feeling behind it | and it falls apart halfway
| because we have seen it all before | with no sense of timing | and it never finds its feet | as if made in a hurry
| because everything is spelled out | and it wears thin quickly | with far too much padding | and it left me cold
| because the idea is never followed through | with little to hold on to | and it tries too hard | as though half of it is missing
| like a draft that escaped | without any reason to exist | and I lost the thread early | because no one checked the facts
| with a twist you can smell miles off | and it gets worse each time | full of borrowed tricks | like homework done on the bus
""")
FRAMES = (
    "{s} {be} {i} {a}",
    "I found {s} {i} {a}",
    "{s} struck me as {i} {a}",
    "to me {s} {be} {i} {a}",
    "I would call {s} {i} {a}",
    "{s} came across as {i} {a}",
    "you will find {s} {i} {a}",
    "there is no denying that {s} {be} {i} {a}",
    "{i} {a}, that is the word for {s}",
    "I kept coming back to {s}, {i} {a}",
    "what about {s}? {I} {a}",
    "we all thought {s} {be} {i} {a}",
)
GOOD_TITLES = (
    "{A} and {a2}",
    "{S} {be} {a}",
    "Stay for {s}",
    "A {a} {genre}",
    "{S}!",
    "{A}, {a2}, well made",
    "Do not miss {s}",
    "Such a {a} {thing}",
    "All about {s}",
    "So {a}",
)
BAD_TITLES = (
    "{A} and {a2}",
    "{S} {be} {a}",
    "Not even {s} helps",
    "A {a} {genre}",
    "Too {a} for me",
    "{A}, {a2}, skip it",
    "Sorry about {s}",
    "Such a {a} {thing}",
    "Let down by {s}",
    "Rather {a}",
)

# From here on each list is cut in two: even positions for the benchmark, odd ones for pre-training.
OPENING_HEADS = _list("""
Picked this up | Bought this used | My sister lent me this {thing} | Found this in a sale | Came to this {thing} late | Our club chose this
| Got this as a gift | I waited a whole year for this | A coworker kept talking about this {thing} | Ordered this by mistake
| I had low hopes for this {thing} | Took this along on holiday | Saw this in a shop window | I had to {verb} this {thing} twice
| Been meaning to get to this | I chose this {thing} for the cover alone | My mother insisted on this {thing} | Grabbed this at the airport
| I never planned to {verb} this | This {thing} sat on my shelf | A friend swore by this {thing} | Finally got around to this
| I stumbled over this {thing} online | We settled on this one
""")
OPENING_TAILS = _list("""
on a rainy Sunday | after a long week | for my birthday | while the kids were asleep | without knowing a thing about it
| because the library had nothing else | during a power cut | right after moving house | between two night shifts
| out of plain curiosity | with a pot of tea beside me | on the strength of one headline | in the middle of exam season
| before the holidays began | while nursing a bad cold | since everybody at work had an opinion | at the end of a rough month
| thanks to a radio show | against all good advice | with nothing better to do | over one very long weekend
| after reading three bad reviews | when my train was cancelled | hoping for some comfort
""")
GOOD_CLOSING_HEADS = _list("""
Worth every penny | I will gladly return to it | This one stays on my shelf | Highly recommended | I have already ordered more
| Give it a try | It made my week | I could start over tomorrow | You will not regret it | Count me as a fan
| It deserves a bigger audience | Treat yourself | I smiled for hours afterwards | Two thumbs up from me | Put it on your list
| I am so glad I found it | My copy is going nowhere | Go and get it | It won me over completely | An easy five minutes of praise
""")
BAD_CLOSING_HEADS = _list("""
Save your money | I will not be back | Mine goes to the charity shop | Hard to recommend | I want my evening returned
| Look elsewhere | It simply is not for me | Better luck next time | I gave up caring | Borrow it if you must
| A missed opportunity | Never again | I expected so much more | Leave it on the rack | You have been warned
| Once was plenty | I cannot see the appeal | It goes straight back | My patience ran out | Such a waste of talent
""")
CLOSING_TAILS = _list("""
and that is rare these days | especially at this price | if you ask me | take it from an old hand | and I do not say that lightly
| for what it is worth | no matter what the critics say | even my husband agreed | and so say my friends | at least in my house
| as simple as that | now more than ever | whatever your taste | and then some | cross my heart | end of story
| though your mileage may vary | and I mean it | come rain or shine | speaking as a longtime buyer
""")
REMARK_HEADS = _list("""
My cat | The neighbor upstairs | My youngest | Our mail carrier | My reading glasses | Grandpa | The dog | My old roommate
| Half my family | A man on the bus | My dentist | The whole office | My tea | Aunt Rosa | The baby | My bowling partner
| Somebody at the gym | My landlord | Our choir director | The parrot
""")
REMARK_TAILS = _list("""
slept through most of it | asked about it twice | wanted to borrow it at once | did not get the point | pretended not to listen
| went cold in the meantime | still brings it up at dinner | gave me a strange look | laughed in all the wrong places
| would have walked out | needed a break halfway | now wants a copy too | had to be bribed with cake | kept humming along
| wept a little | called it a modern classic | fell off the sofa | left early to fix the car | took notes | begged for the next one
""")
VERDICT_HEADS = _list("""
All in all | In short | Bottom line | When all is said and done | To sum it up | My verdict | Taken together | At the end of the day
| Long story short | If I had to choose one phrase | For me at least | On balance | In two words | So there you have it
| Looking back now | To put it bluntly
""")
PRAISE = _list("""
a quiet marvel | pure comfort | a small miracle | my favorite of the year | a proper treat | a keeper | time well spent | a real gem
| a joy from start to finish | a feast | the real deal | a happy surprise | a little treasure | a class act | good company
| a breath of mountain air | top drawer stuff | a warm blanket | a knockout | a job well done
""")
BLAME = _list("""
a slog | a letdown | thin soup | a long yawn | a wasted chance | a muddle | hard work | a dud | all smoke and no fire | a chore
| a damp squib | an empty box | a mixed bag at best | a sorry affair | much ado about little | a bore | a wrong turn | cold porridge
| a headache | a lemon
""")
CONNECTORS = _list("""
On top of that | Then again | Mind you | Besides | To be fair | Meanwhile | I must say | Also | By the way | What is more
| Truth be told | Of course | Funny thing is | In all fairness | As it happens | Granted | Come to think of it | Plus
| Believe me | Naturally
""")
INTENSIFIERS = _list("""
really | truly | awfully | so very | quite | downright | remarkably | simply | terribly | genuinely | thoroughly | pretty
| wonderfully | rather | utterly | somewhat | unusually | plainly | surprisingly | totally
""")
