"""
What the sample shop sells, and where: its catalogue, countries, names, seasons and usual troubles.

The e-mails are at example.com and the phone numbers lie in blocks that no operator hands out, though they are valid.
"""

from __future__ import annotations

from dataclasses import dataclass

ZONE = "America/Mexico_City"  # the shop's own


@dataclass(frozen=True)
class Country:
    """Where the shop sells: its money, places, and the block its sample phone numbers lie in."""

    code: str
    share: float
    currency: str
    price: float  # one MXN of the price list in the country's currency
    rounding: int  # prices are multiples of this many hundredths
    ahead: int  # hours its clocks are ahead of the shop's, roughly
    phone: str  # followed by five digits; a valid mobile number in a block nobody is given
    national: str  # the same as people write it at home; {} takes the five digits in two groups
    places: tuple[tuple[str, str, str, int], ...]  # region, city, postal prefix, digits that follow
    carriage: int  # days from shipping to delivery, typically
    zone: str  # of its largest city


COUNTRIES = (
    Country("MX", 0.55, "MXN", 1.0, 100, 0, "+5255000", "55 000{} {}", (
        ("Ciudad de México", "Ciudad de México", "06", 3), ("Ciudad de México", "Ciudad de México", "03", 3),
        ("Jalisco", "Guadalajara", "44", 3), ("Nuevo León", "Monterrey", "64", 3), ("Puebla", "Puebla", "72", 3),
        ("Yucatán", "Mérida", "97", 3), ("Querétaro", "Querétaro", "76", 3), ("Guanajuato", "León", "37", 3),
        ("Baja California", "Tijuana", "22", 3), ("Sonora", "Hermosillo", "83", 3), ("Quintana Roo", "Cancún", "77", 3),
    ), 3, ZONE),
    Country("CO", 0.18, "COP", 215.0, 10_000, 1, "+5730000", "300 00{} {}", (
        ("Bogotá D.C.", "Bogotá", "110", 3), ("Antioquia", "Medellín", "050", 3), ("Valle del Cauca", "Cali", "760", 3),
        ("Atlántico", "Barranquilla", "080", 3), ("Bolívar", "Cartagena", "130", 3),
    ), 5, "America/Bogota"),
    Country("AR", 0.15, "ARS", 78.0, 10_000, 3, "+54911000", "011 15-000{}-{}", (
        ("Ciudad Autónoma de Buenos Aires", "Buenos Aires", "14", 2), ("Córdoba", "Córdoba", "50", 2),
        ("Santa Fe", "Rosario", "20", 2), ("Mendoza", "Mendoza", "55", 2), ("Buenos Aires", "La Plata", "19", 2),
    ), 6, "America/Argentina/Buenos_Aires"),
    Country("ES", 0.12, "EUR", 0.051, 10, 7, "+346000", "600 0{} {}", (
        ("Madrid", "Madrid", "28", 3), ("Cataluña", "Barcelona", "08", 3), ("Comunitat Valenciana", "Valencia", "46", 3),
        ("Andalucía", "Sevilla", "41", 3), ("País Vasco", "Bilbao", "48", 3), ("Galicia", "A Coruña", "15", 3),
        ("Canarias", "Las Palmas de Gran Canaria", "35", 3),
    ), 4, "Europe/Madrid"),
)  # fmt: skip

FIRST_NAMES = (
    "Sofía", "María José", "Valentina", "Camila", "Lucía", "Ximena", "Regina", "Daniela", "Mariana", "Fernanda", "Ana",
    "Begoña", "Inés", "Itziar", "Guadalupe", "Rocío", "Paula", "Antonella", "Martina", "Luz Ángela", "Yolanda", "Elena",
    "José", "Jesús", "Juan Pablo", "Santiago", "Mateo", "Sebastián", "Andrés", "Nicolás", "Tomás", "Iñaki", "Íñigo",
    "Diego", "Luis Ángel", "Óscar", "Raúl", "Joaquín", "Facundo", "Álvaro", "Emiliano", "Germán", "Hernán", "Simón",
)  # fmt: skip
LAST_NAMES = (
    "Hernández", "García", "Martínez", "López", "González", "Rodríguez", "Pérez", "Sánchez", "Ramírez", "Muñoz",
    "Núñez", "Peña", "Ibáñez", "Ordóñez", "Castañeda", "Zúñiga", "Quiñones", "Acuña", "Gómez", "Díaz", "Vázquez",
    "Fernández", "Álvarez", "Restrepo", "Ospina", "Cárdenas", "Villalobos", "Benítez", "Giménez", "Etxebarria", "Ruiz",
    "Domínguez", "Ferreyra", "Sosa", "Romero", "Luna", "Ávila", "Solís", "Treviño", "Uribe", "Patiño", "Echeverría",
)  # fmt: skip


@dataclass(frozen=True)
class Product:
    sku: str
    name: str
    category: str
    price: int  # MXN
    weight: float


CATALOGUE = (
    Product("CAF-CHI-500", "Café de Chiapas, 500 g", "café", 245, 9),
    Product("CAF-OAX-500", "Café de Oaxaca Pluma, 500 g", "café", 265, 7),
    Product("CAF-HUI-500", "Café de Huila, 500 g", "café", 255, 6),
    Product("CAF-VER-1K", "Café de Veracruz, 1 kg", "café", 420, 5),
    Product("CAF-DES-250", "Café descafeinado, 250 g", "café", 165, 3),
    Product("CAF-MES-1", "Café del mes", "café", 290, 4),
    Product("PRE-AER-1", "Cafetera AeroPress", "preparación", 980, 1.6),
    Product("PRE-V60-1", "Cono V60 de cerámica", "preparación", 520, 2),
    Product("PRE-PRE-6", "Prensa francesa, 6 tazas", "preparación", 690, 1.6),
    Product("PRE-MOL-1", "Molino manual", "preparación", 1150, 1.2),
    Product("PRE-FIL-100", "Filtros de papel, 100 piezas", "preparación", 110, 4),
    Product("MES-TAZ-2", "Par de tazas de barro", "mesa", 340, 3),
    Product("MES-JAR-1", "Jarra de talavera", "mesa", 560, 1.4),
    Product("MES-PLA-4", "Platos de peltre, 4 piezas", "mesa", 480, 1.5),
    Product("MES-MAN-1", "Mantel bordado", "mesa", 790, 1),
    Product("HOG-VEL-1", "Vela de cera de soya, naranja y canela", "hogar", 230, 3),
    Product("HOG-CAN-1", "Canasta de palma", "hogar", 450, 1.5),
    Product("HOG-COB-1", "Cobija de lana, telar", "hogar", 1490, 0.8),
    Product("HOG-COJ-1", "Cojín tenango", "hogar", 610, 1.2),
    Product("DES-CHO-1", "Chocolate de mesa, 6 tablillas", "despensa", 150, 4),
    Product("DES-MIE-1", "Miel de abeja melipona", "despensa", 310, 2),
    Product("DES-GAL-1", "Galletas de nata", "despensa", 120, 3),
)
SEASON = (
    0.85,
    0.9,
    0.85,
    0.9,
    1.15,
    0.85,
    0.85,
    0.85,
    0.95,
    1.0,
    1.4,
    1.5,
)  # January to December; Mother's Day, Buen Fin
SOURCES = ("checkout", "newsletter form", "shop counter", "loyalty card")
TAGS = ("newsletter", "gift buyer", "subscription", "wholesale", "vip", "market stall")
WRONGS = (
    ("complaint", "broken", "One piece arrived broken."),
    ("complaint", "late", "It arrived a week later than promised."),
    ("complaint", "wrong item", "Another blend than the one ordered."),
    ("return", "changed mind", "Would like to send it back."),
    ("return", "damaged", "The box was crushed."),
    ("refund", "missing item", "A product was missing from the parcel."),
    ("question", "use", "How fine should it be ground?"),
    ("question", "shipping", "Where is my parcel?"),
)
